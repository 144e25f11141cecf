"""Ctrl-C at every place where the interpreter may deliver it, one after the other."""

import sys

HERE = ("/radiobject/ml/device/", "/radiobject/ml/loaders/", "/cache/registration.py", __file__)


def at_every_place(scenario, *, stride=1):
    """Yield, for each place of a scenario, whether it was interrupted there.

    A signal is delivered when a function is entered and when a call of compiled code has returned,
    so that is where a KeyboardInterrupt is raised: at the first of these places in one run, at the
    next in another, until a run comes to its end. Not between taking a lock and the block that it
    is for: Python 3.14 delivers one there, and the lock stays taken (python/cpython#148874).
    """
    place, done = 0, False
    while not done:
        done = not _interrupted(scenario, place)
        yield not done
        place += stride


def _interrupted(scenario, place):
    left = [place]

    def look(frame, event, called):
        if getattr(called, "__name__", "") == "__enter__":
            return
        if event in ("call", "c_return") and any(h in frame.f_code.co_filename for h in HERE):
            left[0] -= 1
            if left[0] == -1:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(look)
    try:
        kept = scenario()  # finalizers run later: what is raised in them reaches nobody
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    del kept
    return False


class Host:
    """A driver that is interrupted as well: what it was told is done all the same."""

    def __init__(self):
        self.live, self.fenced = {}, 0

    def register(self, address, nbytes):
        assert address not in self.live
        self.live[address] = nbytes
        len(self.live)  # the call of compiled code after which it may be interrupted

    def unregister(self, address):
        len(self.live)
        self.live.pop(address, None)
        len(self.live)

    def fence(self):
        self.fenced += 1
        return lambda: True
