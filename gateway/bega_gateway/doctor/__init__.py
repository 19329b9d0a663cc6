"""What is wrong with a gateway, in words, and what to do: findings as data, ordered by what stops readings now."""
