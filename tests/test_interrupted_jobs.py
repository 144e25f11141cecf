"""What an interrupt leaves of jobs under way: none that goes on after the run has ended."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from radiobject.executors import run


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_job_whose_submission_was_interrupted_has_ended_with_the_run(monkeypatch, at):
    """It wrote its volume after the roll-back, once in some hundred interrupts."""
    submit, submitted = ThreadPoolExecutor.submit, 0
    begun, done, go_on = [], [], threading.Event()

    def interrupted(self, *given):
        nonlocal submitted
        future = submit(self, *given)
        submitted += 1
        if submitted == at:
            while len(begun) < min(at, 2):
                threading.Event().wait(0.001)
            threading.Timer(0.05, go_on.set).start()
            raise KeyboardInterrupt
        return future

    def job(number):
        begun.append(number)
        if number > at - 5:  # a fifth job is submitted when the first has ended
            go_on.wait(20)
        done.append(number)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(run(job, range(9), max_workers=2))
    assert begun
    assert sorted(done) == sorted(begun)
    after = list(begun)
    monkeypatch.undo()
    assert list(run(lambda number: number, range(4), max_workers=2)) == [0, 1, 2, 3]
    assert begun == after
