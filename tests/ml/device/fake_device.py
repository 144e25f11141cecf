"""A device that is none: copies end when the test says so, and the driver counts."""

import lz4.block
import torch
import zstandard

from radiobject.storage.cache.registration import RegistrationRefusedError


class FakeHost:
    """Memory as a driver sees it. `running` holds the copies that have not ended, by address."""

    def __init__(self, refuse=False):
        self.refuse = refuse
        self.live, self.registered, self.fences = {}, 0, 0
        self.running = []

    def register(self, address, nbytes):
        if self.refuse:
            raise RegistrationRefusedError("cudaHostRegister: operation not supported")
        assert address % 4096 == 0
        assert all(address + nbytes <= a or a + n <= address for a, n in self.live.items())
        self.live[address] = nbytes
        self.registered += 1

    def unregister(self, address):
        assert not any(address <= a < address + self.live[address] for a in self.running)
        del self.live[address]

    def copy(self, tensor):
        """Start a copy that reads `tensor` until it is taken out of `running`."""
        self.running.append(tensor.data_ptr())
        return self.running[-1]

    def fence(self):
        self.fences += 1
        started = list(self.running)
        return lambda: not any(copy in self.running for copy in started)


class Reference:
    """Decompresses blocks on the processor, one by one, as what a device does is to be.

    `damage` takes what was decompressed, to return something else.
    """

    compressions = frozenset({"zstd", "lz4"})

    def __init__(self, damage=None):
        self.damage = damage
        self.calls = []

    def __call__(self, compression, stored, begins, lengths, sizes, out, largest):
        self.calls.append(len(begins))
        plain = stored.numpy()
        right = torch.zeros(len(begins), dtype=torch.bool)
        assert int(sizes.max()) <= largest <= out.shape[1]
        where = zip(begins.tolist(), lengths.tolist(), sizes.tolist(), strict=True)
        for row, (begin, length, nbytes) in enumerate(where):
            assert begin % 16 == 0
            block = plain[begin : begin + length].tobytes()
            if compression == "zstd":
                made = zstandard.ZstdDecompressor().decompress(block, nbytes)
            else:
                made = lz4.block.decompress(block, nbytes)
            right[row] = len(made) == nbytes
            out[row, :nbytes] = torch.frombuffer(bytearray(made), dtype=torch.uint8)
        if self.damage is not None:
            self.damage(out, right)
        return right
