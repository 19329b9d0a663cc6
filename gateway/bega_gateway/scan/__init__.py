"""`bega gateway scan`: what hangs on this machine, and the configuration that reads it."""
