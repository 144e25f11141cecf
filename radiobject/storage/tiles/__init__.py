"""Where each tile of a volume lies, and how it is decoded."""
