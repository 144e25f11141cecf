"""Tiles of one object: fetched by ranges, nearly each byte of it once for a first pass.

A range that is asked for brings the tiles between those that are wanted, too. They are kept, still
compressed, until somebody wants them; a range that is under way is waited for rather than asked
for again by another thread. A gap of bytes that were here before is bridged as long as all that is
fetched again stays within a share of what is stored.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from weakref import WeakValueDictionary

from radiobject import process
from radiobject.ctx import get_radiobject_config
from radiobject.exceptions import IntegrityError
from radiobject.geometry.ranges import coalesce
from radiobject.storage.io import stats
from radiobject.storage.io.remote import RemoteFiles
from radiobject.storage.tiles.blosc_chunk import Buffer, load_meanwhile
from radiobject.storage.tiles.tile_index import TileIndex

# Against 30 ms a request, one of 0.9 MB beats three of 0.16 MB (docs/design/tile-index.md).
REMOTE_GAP_BYTES = 1 << 20
REMOTE_RANGE_BYTES = 8 << 20
# A request costs more than so many bytes that were fetched before.
_AGAIN_BYTES = 16 << 10
_AGAIN_SHARE = 0.09
_LATER_SHARE = 0.9


class UnreadTiles:
    """Compressed tiles that came along with others, up to a number of bytes in a process.

    Each is given out once. Of several volumes, the one longest without a new tile is dropped first.
    """

    def __init__(self) -> None:
        self._volumes: OrderedDict[str, dict[int, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0

    def take(self, volume: str, numbers: Sequence[int]) -> dict[int, bytes]:
        """Return those of the tiles that are here, and give them up."""
        with self._lock:
            known = self._volumes.get(volume)
            if known is None:
                return {}
            found = {number: known.pop(number) for number in numbers if number in known}
            if not known:
                del self._volumes[volume]
            self.nbytes -= sum(map(len, found.values()))
        return found

    def keep(self, volume: str, tiles: Mapping[int, Buffer], limit: int) -> None:
        """Keep copies of tiles, and drop others until all of them have at most `limit` bytes."""
        copies = {number: bytes(tile) for number, tile in tiles.items()}
        with self._lock:
            known = self._volumes.setdefault(volume, {})
            self._volumes.move_to_end(volume)
            for number, tile in copies.items():
                self.nbytes += len(tile) - len(known.get(number, b""))
                known[number] = tile
            while self.nbytes > limit:
                _, dropped = self._volumes.popitem(last=False)
                self.nbytes -= sum(map(len, dropped.values()))

    def forget(self, volume: str = "") -> None:
        """Drop the tiles of every volume whose name begins like this."""
        with self._lock:
            for name in [name for name in self._volumes if name.startswith(volume)]:
                self.nbytes -= sum(map(len, self._volumes.pop(name).values()))

    def renew_in_child(self) -> None:
        """Start anew in a forked child: a thread of the parent may have been in the middle."""
        self.__init__()  # type: ignore[misc]


class SpareBytes:
    """How many bytes may still be fetched again to save requests, over all volumes of a process.

    A volume that is opened adds a share of its stored bytes, so that a first pass over all of them
    fetches little more than is stored; which volume uses it does not matter.
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self._lock = threading.Lock()

    def add(self, amount: int) -> None:
        """Allow so many more bytes."""
        with self._lock:
            self.nbytes += amount

    def spend(self, amount: int) -> bool:
        """Take so many bytes, if they are there or cost less than a request."""
        with self._lock:
            if amount > max(_AGAIN_BYTES, self.nbytes):
                return False
            self.nbytes = max(0, self.nbytes - amount)
            return True

    def renew_in_child(self) -> None:
        """Give a forked child its own lock, and nothing to spend but on what it opens itself."""
        self.__init__()  # type: ignore[misc]


unread = UnreadTiles()
spare = SpareBytes()


def _restart_in_child() -> None:
    unread.renew_in_child()
    spare.renew_in_child()


process.at_fork("unread tiles", in_child=_restart_in_child)


@dataclass
class _Request:
    """Tiles that one thread has asked for; None in the place of `tiles` if that failed."""

    done: threading.Event = field(default_factory=threading.Event)
    tiles: dict[int, memoryview] | None = None


class RemoteTiles:
    """Tiles of an object, fetched by ranges in parallel."""

    remote = True

    def __init__(self, uri: str, index: TileIndex) -> None:
        self._files = RemoteFiles(uri)
        self._name = index.path
        self._volume = f"{uri}/{index.path}"
        self._offsets = index.offset_list
        self._size = index.file_size
        self._fetched = bytearray(len(self._offsets) - 1)
        self._here = 0
        # Alive as long as somebody decodes them: until then no cache has them.
        self._in_use: WeakValueDictionary[int, memoryview] = WeakValueDictionary()
        spare.add(int(_AGAIN_SHARE * (self._offsets[-1] - self._offsets[0])))
        self._coming: dict[int, _Request] = {}
        self._lock = threading.Lock()
        load_meanwhile()
        stats.count(index_opens=1)

    def renew_in_child(self) -> None:
        """Wait for no request of the parent's threads in a forked child."""
        self._lock = threading.Lock()
        self._coming = {}
        self._in_use = WeakValueDictionary()

    def forget_tiles(self) -> None:
        """Give out no tile that came before: some were altered on their way."""
        with self._lock:
            self._in_use.clear()
        unread.forget(self._volume)

    def check_size(self) -> None:
        """Raise an `IntegrityError` unless the object is as long as it was; one request."""
        size, _ = self._files.tag(self._name)
        if size != self._size:
            raise IntegrityError(f"object {self._volume} has {size} bytes, expected {self._size}")

    def fetch(self, numbers: Sequence[int]) -> list[Buffer]:
        """Return the tiles, with those that lie close together asked for in one request."""
        found: dict[int, memoryview] = {}
        while missing := sorted({n for n in numbers if n not in found}):
            with self._lock:
                found |= {n: tile for n in missing if (tile := self._in_use.get(n)) is not None}
                taken = unread.take(self._volume, [n for n in missing if n not in found])
                found |= {number: memoryview(tile) for number, tile in taken.items()}
                # Others find them here at once, and not only when the rest has come, too.
                self._in_use.update(found)
                coming = {n: r for n in missing if (r := self._coming.get(n)) and n not in found}
                wanted = [n for n in missing if n not in found and n not in coming]
                groups = self._grouped(wanted)
                request = _Request()
                self._coming.update((n, request) for group in groups for n in group)
            if groups:
                found |= self._ask(groups, set(wanted), request)
            for number, other in coming.items():
                other.done.wait()
                if other.tiles is not None:
                    found[number] = other.tiles[number]
            unread.take(self._volume, list(coming))  # what was waited for is not kept as well
            with self._lock:
                self._in_use.update(found)
        return [found[number] for number in numbers]

    def read_into(self, numbers: Sequence[int], memory: memoryview, begins: Sequence[int]) -> None:
        """Fetch tiles and copy them into a memory, each to where it is to begin."""
        for begin, tile in zip(begins, self.fetch(numbers), strict=True):
            memory[begin : begin + len(tile)] = tile

    def _grouped(self, wanted: Sequence[int]) -> list[range]:
        """Return the tiles to be asked for: a range of numbers a request, those wanted in order."""
        offsets = self._offsets
        merged = coalesce(
            [offsets[n] for n in wanted],
            [offsets[n + 1] for n in wanted],
            gap=REMOTE_GAP_BYTES,
            limit=REMOTE_RANGE_BYTES,
        )
        gaps = [(wanted[i] + 1, wanted[j]) for p in merged for i, j in pairwise(p.members)]
        if self._here >= _LATER_SHARE * (self._offsets[-1] - self._offsets[0]):
            # A later pass, and no cache has what is wanted: requests are what can be saved.
            spare.add(self._known_bytes(wanted))
        bridged = self._bridged(gaps)
        groups: list[range] = []
        for piece in merged:
            first = last = wanted[piece.members[0]]
            for number in (wanted[i] for i in piece.members[1:]):
                if (last + 1, number) not in bridged:
                    groups.append(range(first, last + 1))
                    first = number
                last = number
            groups.append(range(first, last + 1))
        return groups

    def _bridged(self, gaps: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
        """Return the gaps to fetch with the tiles around them; each of the others is a request.

        The cheapest come first, as long as there are bytes to spare.
        """
        costs = sorted((self._known_bytes(range(*gap)), gap) for gap in gaps)
        return {gap for again, gap in takewhile(lambda cost: spare.spend(cost[0]), costs)}

    def _known_bytes(self, numbers: Iterable[int]) -> int:
        """Return how many bytes of these tiles were fetched before, or are on their way."""
        offsets, fetched, coming = self._offsets, self._fetched, self._coming
        return sum(offsets[n + 1] - offsets[n] for n in numbers if fetched[n] or n in coming)

    def _ask(
        self, groups: Sequence[range], wanted: set[int], request: _Request
    ) -> dict[int, memoryview]:
        """Return the tiles of every group; keep those that nobody wanted."""
        offsets = self._offsets
        try:
            answers = self._files.ranges(
                self._name,
                [offsets[group.start] for group in groups],
                [offsets[group.stop] for group in groups],
            )
            stats.count(bytes_read=sum(map(len, answers)))
            tiles: dict[int, memoryview] = {}
            for group, answer in zip(groups, answers, strict=True):
                first = offsets[group.start]
                tiles |= {n: answer[offsets[n] - first : offsets[n + 1] - first] for n in group}
            self._keep({n: tile for n, tile in tiles.items() if n not in wanted})
            request.tiles = tiles
        finally:
            with self._lock:
                for number in (n for group in groups for n in group):
                    if self._coming.get(number) is request:
                        del self._coming[number]
                    if request.tiles is not None and not self._fetched[number]:
                        self._fetched[number] = True
                        self._here += self._offsets[number + 1] - self._offsets[number]
            request.done.set()
        return {number: tiles[number] for number in wanted}

    def _keep(self, tiles: Mapping[int, Buffer]) -> None:
        """Keep tiles that came along, but for those that were here before."""
        new = {n: tile for n, tile in tiles.items() if not self._fetched[n] and len(tile)}
        limit = get_radiobject_config().s3.unread_tiles_mb << 20
        if new and limit:
            unread.keep(self._volume, new, limit)
