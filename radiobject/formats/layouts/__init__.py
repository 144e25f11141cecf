"""Folders that recognise themselves: how public data sets lay out their images, a module each."""
