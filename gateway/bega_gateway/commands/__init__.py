"""Commands from the uplink's broker: read, understood, noted, done once, answered."""
