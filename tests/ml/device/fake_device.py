"""A device that is none: copies end when the test says so, and the driver counts."""

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
