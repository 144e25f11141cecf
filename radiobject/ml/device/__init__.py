"""Batches on the device that trains: gathered by it, or copied to it beside the training."""
