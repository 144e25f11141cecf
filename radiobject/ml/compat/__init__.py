"""What MONAI and TorchIO expect, made when they are there and asked for."""
