"""The road from inputs to logits: read, decode, resize, batch, infer; in order, on all cores, in bounded memory.

An engine of several streams is served by as many threads, each of which prepares pictures and runs them itself: every
core is busy with one thing, and none waits for a neighbour. An engine of one stream uses all cores for a call: threads
prepare a batch on all cores, then the engine has them. One input alone is answered without any thread.
"""

import collections
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from taxonet.data.loader import read_ahead
from taxonet.errors import ImageError
from taxonet.machine import cpu_count

T = TypeVar("T")
Pixels: TypeAlias = NDArray[np.uint8]  # (rows, H, W, C): an item's prepared pictures
Logits: TypeAlias = NDArray[np.float32]  # (rows, classes)

AHEAD = 4  # shares a stream that wait, are in work, or are answered and not yet taken
LEAST_SHARE = 8  # items; a thread that comes back after fewer spends its time on handing over


@dataclass(frozen=True)
class Road(Generic[T]):
    """How items become logits.

    `read` gives an item's pixels (rows, H, W, C), an ImageError being the item's answer and any other error the end of
    the work; `run` gives the logits (N, classes) of pixels (N, H, W, C), for at most `batch` pictures, and is called by
    `streams` threads at a time. `overlap` lets an engine of one stream run while the next pictures are read, which
    pays where it does not need the cores itself.
    """

    read: Callable[[T], Pixels]
    run: Callable[[Pixels], Logits]
    streams: int
    batch: int
    rows: int = 1
    overlap: bool = False

    def answer(self, items: Iterable[T], skip: int = 0) -> Iterator[tuple[T, Logits | str]]:
        """Every item but the first `skip` with its logits (rows, classes), or the sentence why it cannot be read.

        Items are taken by the caller's thread, a bounded number of them ahead. Closing the iterator, or an error, stops
        the threads; each ends with the picture or the batch it is at. Which items share a batch depends on their
        places alone, and, where all fit into one window, on how many there are: a repeated run gives the same bits, and
        so does one that skips what is answered already.
        """
        together = max(1, self.batch // self.rows)
        share = together if self.streams == 1 else together * -(-LEAST_SHARE // together)
        source = iter(items)
        window = max(2, self.streams * share)
        first = list(itertools.islice(source, window))
        if len(first) < window:  # that is all: an even part for each stream
            share = max(1, -(-len(first) // self.streams))
        alone, everything = len(first) == 1, itertools.chain(first, source)
        del first
        for _ in range(skip // share):
            collections.deque(itertools.islice(everything, share), maxlen=0)
        if alone:
            answers: Iterator[tuple[T, Logits | str]] = iter(
                replace(self, streams=1)._work(list(everything), threading.Event())
            )
        else:
            shares = _shares(everything, share)
            answers = self._side_by_side(shares) if self.streams > 1 else self._in_turn(shares)
        yield from itertools.islice(answers, skip % share, None)

    def _side_by_side(self, shares: Iterator[list[T]]) -> Iterator[tuple[T, Logits | str]]:
        """Each thread reads a share and runs it."""
        stopped = threading.Event()
        try:
            work = lambda share: self._work(share, stopped)  # noqa: E731
            for answers in read_ahead(work, shares, workers=self.streams, ahead=AHEAD * self.streams):
                yield from answers
        finally:
            stopped.set()

    def _in_turn(self, shares: Iterator[list[T]]) -> Iterator[tuple[T, Logits | str]]:
        """All threads read a share, then it runs; with `overlap` they read the next one meanwhile."""
        pool = ThreadPoolExecutor(cpu_count(), thread_name_prefix="taxonet-read")

        def begin(share: list[T] | None) -> list[Future[Pixels | str]]:
            return [pool.submit(self._try_to_read, item) for item in share or ()]

        try:
            share = next(shares, None)
            reading = begin(share)
            while share:
                following = next(shares, None)
                ahead = begin(following) if self.overlap else []
                yield from self._run_together(share, [future.result() for future in reading])
                share, reading = following, ahead or begin(following)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _work(self, share: Sequence[T], stopped: threading.Event) -> list[tuple[T, Logits | str]]:
        """The answers of a share, a batch after the other; fewer once the work is stopped."""
        answers: list[tuple[T, Logits | str]] = []
        items: list[T] = []
        found: list[Pixels | str] = []
        for item in share:
            if stopped.is_set():
                return answers
            items.append(item)
            found.append(self._try_to_read(item))
            if len(items) * self.rows >= self.batch:
                answers += self._run_together(items, found)
                items, found = [], []
        return answers + self._run_together(items, found)

    def _try_to_read(self, item: T) -> Pixels | str:
        try:
            return self.read(item)
        except ImageError as error:
            return str(error)

    def _run_together(self, items: Sequence[T], found: Sequence[Pixels | str]) -> list[tuple[T, Logits | str]]:
        readable = [pixels for pixels in found if not isinstance(pixels, str)]
        if not readable:
            return [(item, reason) for item, reason in zip(items, found, strict=True) if isinstance(reason, str)]
        pixels = np.concatenate(readable) if len(readable) > 1 else readable[0]
        parts = [self._run_batch(pixels[i : i + self.batch]) for i in range(0, len(pixels), self.batch)]
        rows = iter(np.split(np.concatenate(parts), np.cumsum([len(part) for part in readable])[:-1]))
        return [(item, one if isinstance(one, str) else next(rows)) for item, one in zip(items, found, strict=True)]

    def _run_batch(self, pixels: Pixels) -> Logits:
        """One picture that comes alone may get other last bits from an engine: no answer shall hang on the timing."""
        if len(pixels) == 1 < self.batch and self.streams > 1:
            return self.run(np.concatenate([pixels, pixels]))[:1]
        return self.run(pixels)


def _shares(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while share := list(itertools.islice(items, size)):
        yield share
