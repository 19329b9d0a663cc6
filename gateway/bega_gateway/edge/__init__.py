"""What the gateway makes of readings: pure functions, run before the commit, each with its source."""
