"""The one error of the benchmarks: something the person at the keyboard can put right."""


class BenchmarkError(RuntimeError):
    """What is wrong, where, and what to do about it, in one line."""
