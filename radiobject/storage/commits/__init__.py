"""One change of a data set: all of it, or none."""
