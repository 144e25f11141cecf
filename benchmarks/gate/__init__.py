"""The gate before a merge, and the proof that it bites."""
