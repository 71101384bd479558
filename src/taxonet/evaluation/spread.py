"""Scoring spread over processes, so that the figures are the same bits for any number of them.

A picture's logits can depend in their last bit on the batch that it is computed in. So the batches are those of a
single process, and each is computed whole by one process; nothing is padded, no picture is seen twice. The rows come
back in the order of the pictures, and every sum is taken over that order.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from taxonet.processes import World

T = TypeVar("T")
Answer = NDArray[np.float32] | str  # a row of figures, or the reason why there is none
Work = Callable[[Sequence[T]], Iterable[Answer]]
READ, FAILED = b"\1", b"\0"


def answers(
    items: Sequence[T], work: Work[T], batch: int, world: World, progress: Callable[[int, int], None] | None = None
) -> Iterator[Answer]:
    """The answers of `work`, one an item and in order; it must take its items in batches of `batch`.

    `progress` is called with (items done, items in all); with several processes it counts this one's, times their
    number.
    """
    if world.size == 1:
        yield from _told(work(items), len(items), 1, progress)
        return
    places = mine(len(items), batch, world)
    own = world.agreed(lambda: list(_told(work([items[i] for i in places]), len(items), world.size, progress)))
    by_rank = [iter(_unpack(data)) for data in world.gather(_pack(own))]
    for place in range(len(items)):
        yield next(by_rank[place // batch % world.size])


def mine(count: int, batch: int, world: World) -> list[int]:
    """The places of this process's batches: every `world.size`-th one, whole."""
    return [place for place in range(count) if place // batch % world.size == world.rank]


def _told(
    found: Iterable[Answer], total: int, size: int, progress: Callable[[int, int], None] | None
) -> Iterator[Answer]:
    for done, answer in enumerate(found, start=1):
        if progress:
            progress(min(done * size, total), total)
        yield answer


def _pack(rows: Sequence[Answer]) -> bytes:
    """Each answer as a mark, its length and its bytes; a row of figures also has its shape."""
    parts = []
    for row in rows:
        if isinstance(row, str):
            data, shape = row.encode(errors="surrogateescape"), ()
        else:
            data, shape = np.ascontiguousarray(row, np.float32).tobytes(), row.shape
        header = np.array([len(data), len(shape), *shape], np.int64).tobytes()
        parts.append((FAILED if isinstance(row, str) else READ) + header + data)
    return b"".join(parts)


def _unpack(data: bytes) -> Iterator[Answer]:
    start = 0
    while start < len(data):
        mark, start = data[start : start + 1], start + 1
        size, dimensions = (int(v) for v in np.frombuffer(data, np.int64, 2, start))
        shape = np.frombuffer(data, np.int64, dimensions, start + 16)
        start += 16 + 8 * dimensions
        body, start = data[start : start + size], start + size
        if mark == FAILED:
            yield body.decode(errors="surrogateescape")
        else:
            yield np.frombuffer(body, np.float32).reshape(shape)
