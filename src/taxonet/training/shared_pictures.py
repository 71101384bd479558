"""The pictures of a run with several processes: each opened once a machine, kept once a machine.

Every process needs every picture sooner or later, since the order of an epoch is drawn anew. So the processes of a
machine divide the opening, and keep what they decoded in one piece of memory that all of them see (an anonymous file of
Linux, gone with the last process). Elsewhere each keeps what it opened itself, and decodes the rest at each use.
"""

import json
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import PIL.Image

from taxonet.console import Listener
from taxonet.data import Finding, Sample, read_ahead
from taxonet.images.colour import Mode
from taxonet.processes import World
from taxonet.training.pictures import Pictures


class SharedPictures(Pictures):
    """Pictures whose decoded pixels lie in memory that all processes of the machine see."""

    def __init__(self, short_side: int, mode: Mode, budget: int) -> None:
        super().__init__(short_side, mode, budget)
        self._memory: mmap.mmap | None = None
        self._places: dict[Path, tuple[int, tuple[int, int]]] = {}

    def open(self, path: Path) -> PIL.Image.Image:
        """The picture at working size; the same pixels whether it was kept or not."""
        if self._memory is None or path not in self._places:
            return super().open(path)
        start, size = self._places[path]
        length = size[0] * size[1] * len(self.mode)
        data = memoryview(self._memory)[start : start + length]
        return PIL.Image.frombuffer(self.mode, size, data, "raw", self.mode, 0, 1)  # type: ignore[arg-type]

    def share(self, sizes: Sequence[tuple[Path, tuple[int, int]]], world: World) -> None:
        """Move what this process has kept to the common memory; `sizes` are all pictures that this machine opened."""
        places, end = {}, 0
        for path, size in sizes:
            length = size[0] * size[1] * len(self.mode)
            if end + length <= self.budget:
                places[path] = (end, size)
                end += length
        memory = _common_memory(max(end, 1), world)
        if memory is None:
            return
        for path in [path for path in places if path in self._kept]:
            data = self._kept.pop(path).tobytes()
            memory[places[path][0] : places[path][0] + len(data)] = data
        world.gather(b"")  # everything is in its place
        self._kept.clear()
        self._memory, self._places, self.used = memory, places, end


def open_shared(
    samples: Sequence[Sample], pictures: SharedPictures, listener: Listener, world: World, title: str, keep: bool
) -> tuple[list[Sample], list[Finding]]:
    """Open pictures, each once a machine: the readable samples, and a finding for each other, in all processes alike.

    A picture that one machine cannot read is left out on all of them.
    """
    # Which were opened where is decided by the place alone, so the answers of a machine can be put together again.
    own = samples[world.local_rank :: world.local_size]
    listener.start(title, len(samples))
    found: list[tuple[int, int, bool] | str] = []  # width, height, whether it was kept; or why it cannot be read
    for done, (sample, answer) in enumerate(
        zip(own, read_ahead(pictures.try_open, [s.path for s in own]), strict=True), start=1
    ):
        if isinstance(answer, str):
            found.append(answer)
        else:
            kept = keep and pictures.keep(sample.path, answer)
            found.append((*answer.size, kept))
        listener.advance(min(len(samples), done * world.local_size))
    listener.finish()
    report = {"world": vars(world), "found": found, "budget": pictures.budget}
    reports = [json.loads(text) for text in world.gather(json.dumps(report).encode())]
    broken = {place: answer for report in reports for place, answer in _placed(report) if isinstance(answer, str)}
    if keep:
        mine = [report for report in reports if report["world"]["node"] == world.node]
        pictures.budget = min(int(report["budget"]) for report in mine) * world.local_size
        sizes = sorted((place, answer) for report in mine for place, answer in _placed(report) if place not in broken)
        pictures.share(
            [(samples[place].path, (width, height)) for place, (width, height, kept) in sizes if kept], world
        )
    readable = [sample for place, sample in enumerate(samples) if place not in broken]
    return readable, [Finding(str(samples[place].path), broken[place]) for place in sorted(broken)]


def _placed(report: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """What a process found, with the places of the samples among all."""
    start, step = report["world"]["local_rank"], report["world"]["local_size"]
    return ((start + number * step, answer) for number, answer in enumerate(report["found"]))


def _common_memory(size: int, world: World) -> mmap.mmap | None:
    """Memory that all processes of this machine see; None in all processes where one of them cannot have it."""
    memory, handle = None, -1
    offer = b""
    if world.local_rank == 0 and hasattr(os, "memfd_create"):
        try:
            handle = os.memfd_create("taxonet-pictures")
            os.ftruncate(handle, size)
            memory = mmap.mmap(handle, size)
            offer = json.dumps([world.node, os.getpid(), handle]).encode()
        except OSError:
            offer = b""
    for node, process, number in (json.loads(text) for text in world.gather(offer) if text):
        if node == world.node and world.local_rank != 0:
            memory = _attach(Path(f"/proc/{process}/fd/{number}"), size)
    everyone = not world.any(memory is None)
    if handle >= 0:
        os.close(handle)  # the mapping stays
    return memory if everyone else None


def _attach(path: Path, size: int) -> mmap.mmap | None:
    try:
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), size)
    except (OSError, ValueError):
        return None
