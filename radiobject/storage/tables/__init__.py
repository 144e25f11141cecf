"""Tables, groups and arrays as TileDB writes them."""
