"""Pure plans: boxes, tilings, patches and epochs, without I/O, clock or global random state."""
