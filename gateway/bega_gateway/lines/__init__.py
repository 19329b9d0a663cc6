"""Lines: everything that touches a wire. Generic: a line does not change when a device is added."""
