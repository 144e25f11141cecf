"""Decompression on a CUDA device by nvCOMP, where its library is installed (extra ``cuda``).

The calls are those of its C interface for batches of blocks, version 6:
https://docs.nvidia.com/cuda/nvcomp/c_api.html
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import sys
from functools import cache
from pathlib import Path

import torch

_log = logging.getLogger(__name__)

_MAJOR = 6
_NAMES = {"zstd": "Zstd", "lz4": "LZ4"}
"""How nvCOMP calls the compressions that it can decompress as they are stored."""


class _Options(ctypes.Structure):
    """All of them zero: the library chooses how it decompresses."""

    _fields_ = (("reserved", ctypes.c_char * 64),)


class _Properties(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("runtime", ctypes.c_uint32))


def _file() -> Path | None:
    """Return the installed library."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        package = importlib.util.find_spec("nvidia.libnvcomp")
    except ModuleNotFoundError:
        return None
    for folder in package.submodule_search_locations or () if package else ():
        found = Path(folder) / "lib64" / f"libnvcomp.so.{_MAJOR}"
        if found.is_file():
            return found
    return None


@cache
def library() -> ctypes.CDLL | None:
    """Return nvCOMP's library, loaded; None where there is none, or another version."""
    file = _file()
    if file is None:
        return None
    try:
        loaded = ctypes.CDLL(str(file))
        properties = _Properties()
        status = loaded.nvcompGetProperties(ctypes.byref(properties))
        for name in _NAMES.values():
            for call in ("GetTempSize", "Async"):
                getattr(loaded, f"nvcompBatched{name}Decompress{call}")
    except (OSError, AttributeError) as error:
        _log.warning("nvCOMP is installed but cannot be used: %s", error)
        return None
    if status or properties.version // 1000 != _MAJOR:
        _log.warning(
            "nvCOMP %s is installed, version %d is needed: tiles are decoded by the processor",
            properties.version,
            _MAJOR,
        )
        return None
    return loaded


def decompressor(device: torch.device) -> NvcompDecompressor | None:
    """Return what decompresses on a device; None where nothing does."""
    if device.type != "cuda" or (loaded := library()) is None:
        return None
    return NvcompDecompressor(loaded, device)


class NvcompDecompressor:
    """Decompresses batches of blocks; see `radiobject.ml.device.decoding.Decompressor`.

    Parameters
    ----------
    loaded : ctypes.CDLL
        The library.
    device : torch.device
        The CUDA device.
    """

    compressions = frozenset(_NAMES)

    def __init__(self, loaded: ctypes.CDLL, device: torch.device) -> None:
        self._library = loaded
        self._device = device

    def __call__(
        self,
        compression: str,
        stored: torch.Tensor,
        begins: torch.Tensor,
        lengths: torch.Tensor,
        sizes: torch.Tensor,
        out: torch.Tensor,
        largest: int,
    ) -> torch.Tensor:
        """Start decompressing on the current stream; return which blocks were right."""
        count, name = len(begins), _NAMES[compression]
        stream = ctypes.c_void_p(self._stream())
        room = ctypes.c_size_t()
        self._call(
            f"nvcompBatched{name}DecompressGetTempSize",
            ctypes.c_size_t(count),
            ctypes.c_size_t(largest),
            _Options(),
            ctypes.byref(room),
            ctypes.c_size_t(count * largest),
            stream,
        )
        # What is taken here is given back in the order of the stream, so it may be at once.
        work = self._empty(max(room.value, 1), torch.uint8)
        sources = begins + stored.data_ptr()
        step = out.stride(0) * out.element_size()
        targets = out.data_ptr() + step * torch.arange(count, device=self._device)
        written = torch.zeros_like(sizes)
        status = torch.full((count,), -1, dtype=torch.int32, device=self._device)
        self._call(
            f"nvcompBatched{name}DecompressAsync",
            _pointer(sources),
            _pointer(lengths),
            _pointer(sizes),
            _pointer(written),
            ctypes.c_size_t(count),
            _pointer(work),
            room,
            _pointer(targets),
            _Options(),
            _pointer(status),
            stream,
        )
        return (status == 0) & (written == sizes)

    def _stream(self) -> int:
        return int(torch.cuda.current_stream(self._device).cuda_stream)

    def _empty(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(count, dtype=dtype, device=self._device)

    def _call(self, name: str, *given: object) -> None:
        status = getattr(self._library, name)(*given)
        if status:
            raise RuntimeError(f"{name} returned {status}")


def _pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
