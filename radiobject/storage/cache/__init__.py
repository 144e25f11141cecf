"""Decoded tiles in memory that all processes of the machine share."""
