"""The mosquitto of a gateway, or of a city: its configuration, its access list, and who is revoked."""
