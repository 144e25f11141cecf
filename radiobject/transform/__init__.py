"""Volumes mapped, streamed and written."""
