"""The command line: one module per group of commands, each a thin door to the library."""
