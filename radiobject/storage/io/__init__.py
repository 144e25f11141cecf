"""Files, objects, locks, memory and libtiledb."""
