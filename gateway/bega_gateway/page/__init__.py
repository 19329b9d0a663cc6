"""The technician's local page: what is wrong, what each line says, and the few things that may be done from a phone."""
