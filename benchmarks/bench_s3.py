"""The training loader over an object store 30 ms away: requests, bytes and seconds."""

import itertools

from benchmarks.suites import Fixture

LATENCY_MS = 30.0
SAMPLES = 64


class S3(Fixture):
    """Sixty-four patches, on first touch of the store by a process and afterwards."""

    params = ("first touch", "later")
    param_names = ("state",)
    rounds = 1
    repeat = 1

    def setup(self, task, state):
        from contextlib import ExitStack

        from benchmarks.errors import BenchmarkError
        from benchmarks.s3 import running_server
        from benchmarks.suites import make_loader

        self.stack = ExitStack()
        try:
            self.stack.enter_context(running_server(LATENCY_MS))
        except BenchmarkError as error:
            raise NotImplementedError(str(error)) from error
        loader = make_loader("radiobject-s3", task)
        loader.prepare()
        self.batches = self.endless(loader)
        if state == "later":
            for _ in range(2 * len(task.boxes()) // task.batch_size):
                next(self.batches)

    def teardown(self, task, state):
        self.stack.close()

    def endless(self, loader):
        """Yield batches from a loader that is opened with the first of them."""
        from benchmarks.infrastructure.measure import endless

        yield from endless(loader.open())

    def take(self, task):
        for batch in itertools.islice(self.batches, SAMPLES // task.batch_size):
            batch["image"].sum()

    def time_patches(self, task, state):
        self.take(task)

    def track_requests(self, task, state):
        return self.counted(task).requests

    track_requests.unit = "requests"

    def track_bytes(self, task, state):
        return self.counted(task).bytes_sent

    track_bytes.unit = "bytes"

    def counted(self, task):
        """Return what the server answered while the patches were taken."""
        from benchmarks.s3 import Traffic, traffic

        before = traffic()
        self.take(task)
        after = traffic()
        return Traffic(after.requests - before.requests, after.bytes_sent - before.bytes_sent)
