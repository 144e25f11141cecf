"""Which device batches are to lie on, or one clear line about why they cannot."""

from __future__ import annotations

import torch

from radiobject.exceptions import ConfigurationError


def chosen_device(device: torch.device | str | int | None) -> torch.device | None:
    """Return the device with its number; None where batches stay with the processor.

    Raises
    ------
    ConfigurationError
        If it is not "cpu" or a CUDA device, or this machine or this PyTorch has no such device.
    """
    if device is None:
        return None
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigurationError(f"device must be 'cpu' or 'cuda', got {device!r}") from error
    if wanted.type == "cpu":
        return torch.device("cpu")
    if wanted.type != "cuda":
        raise ConfigurationError(
            f"device must be 'cpu' or 'cuda', got {device!r}; leave it out and move the "
            "batches yourself, without their affines where the device has no float64 (mps)"
        )
    if not torch.backends.cuda.is_built():
        raise ConfigurationError(
            f"device {str(device)!r} needs a PyTorch with CUDA; this is {torch.__version__}: "
            "install one, or leave device out"
        )
    if not torch.cuda.is_available():
        raise ConfigurationError(
            f"device {str(device)!r} asked for, but PyTorch sees no CUDA device (no driver, or "
            "CUDA_VISIBLE_DEVICES hides it); leave device out to train on the processor"
        )
    if torch.cuda._is_in_bad_fork():
        raise ConfigurationError(
            f"device {str(device)!r} cannot be used in a process that was forked after CUDA had "
            "begun: start it by 'spawn', or make its loader before anything uses CUDA"
        )
    count = torch.cuda.device_count()
    number = torch.cuda.current_device() if wanted.index is None else wanted.index
    if not 0 <= number < count:
        raise ConfigurationError(
            f"device {str(device)!r} is not there: this process sees {count} CUDA devices, "
            f"cuda:0 to cuda:{count - 1}"
        )
    return torch.device("cuda", number)


def predictor_device(device: torch.device | str) -> torch.device:
    """Return the device of a predictor: any that PyTorch has; a CUDA device has to be there.

    Raises
    ------
    ConfigurationError
        If it is no device, or a CUDA device that is not there.
    """
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigurationError(f"device must be one of PyTorch's, got {device!r}") from error
    return chosen_device(wanted) or wanted if wanted.type == "cuda" else wanted
