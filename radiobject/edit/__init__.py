"""Changes of a data set that is there."""
