"""The durable way out of gateway, kiosk and desk: stored first, sent second, deleted when it was acknowledged."""
