"""Which tables, volumes and indexes make a data set."""
