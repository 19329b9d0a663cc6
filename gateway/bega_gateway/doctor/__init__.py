"""What is wrong with a gateway, in words, and what to do: findings as data, ordered by what stops readings now."""

from bega_gateway.doctor.examine import findings
from bega_gateway.doctor.finding import Finding
from bega_gateway.doctor.look import Look

__all__ = ["Finding", "Look", "findings"]
