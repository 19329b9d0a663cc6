"""Updates of nodes: bundles that lie here, the pieces of them that nodes ask for, and in which order who gets one."""
