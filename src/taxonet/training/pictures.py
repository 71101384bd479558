"""The pictures of a run: split, each opened once before training, and kept in memory where they fit."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL.Image

from taxonet.console import Listener
from taxonet.data import ClassIndex, DataSet, Finding, Sample, read_ahead, sort_by_known, stratified_split
from taxonet.data.sources import WHOLE
from taxonet.errors import DataError, ImageError
from taxonet.images import decode
from taxonet.images.colour import Mode
from taxonet.processes import World

# Kept pictures have this many times the short side that the network sees: a random crop of a third of the area is
# still not enlarged, and memory stays bounded.
WORKING_SCALE = 1.75
MEMORY_SHARE = 0.4  # of the memory that is free


@dataclass(frozen=True)
class Split:
    """Training and validation samples of a run, and where the validation samples came from."""

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    classes: tuple[str, ...]
    origin: str
    findings: tuple[Finding, ...]


def split_data(found: DataSet, fraction: float, seed: int) -> Split:
    """Divide data: its own splits where it has them, else a stratified seeded one.

    Raises:
        DataError: there is no training split, or fewer than two classes.
    """
    data = found.source
    train: Sequence[Sample] = found.splits.get("train", found.splits.get(WHOLE, ()))
    if not train:
        raise DataError(f"{data} has no training pictures, only {', '.join(found.splits)}")
    classes = tuple(sorted({sample.label for sample in train}))
    if len(classes) < 2:
        raise DataError(f"{data} has one class ('{classes[0]}'), a classifier needs at least two")
    unprintable = next((name for name in classes if not name.isprintable()), None)
    if unprintable is not None:  # the bundle could not hold it, and that would show only at the end
        raise DataError(f"the class name {unprintable!a} holds a line break or is not Unicode, rename it")
    val: Sequence[Sample] = found.splits.get("val", ())
    origin = "the data's own validation split"
    if not val:
        train, val = stratified_split(train, fraction, seed)
        origin = f"made here: stratified, {fraction:.0%} of each class, seed {seed}"
    index = ClassIndex(classes)
    val, val_findings = sort_by_known(val, index)
    test, test_findings = sort_by_known(found.splits.get("test", ()), index)
    if not val:
        raise DataError(f"{data} leaves no picture for validation, a class needs at least two pictures")
    findings = (*found.findings, *val_findings, *test_findings)
    return Split(tuple(train), tuple(val), tuple(test), classes, origin, findings)


def counted(split: Split) -> list[int]:
    """The training pictures of each class, in the order of the classes."""
    counts = Counter(sample.label for sample in split.train)
    return [counts[name] for name in split.classes]


def open_once(
    samples: Sequence[Sample], short_side: int, channels: int, listener: Listener, world: World
) -> tuple[list[Sample], "Pictures", list[Finding]]:
    """Open every picture once: the readable samples, their pictures, and a finding for each of the others."""
    mode: Mode = "L" if channels == 1 else "RGB"
    working, budget = round(short_side * WORKING_SCALE), int(MEMORY_SHARE * _free_memory())
    if world.size > 1:
        from taxonet.training.shared_pictures import SharedPictures, open_shared

        shared = SharedPictures(working, mode, budget // world.local_size)
        found = open_shared(samples, shared, listener, world, "opening pictures", keep=True)
        return found[0], shared, found[1]
    store = Pictures(working, mode, budget)
    readable: list[Sample] = []
    findings: list[Finding] = []
    listener.start("opening pictures", len(samples))
    for done, (sample, answer) in enumerate(
        zip(samples, read_ahead(store.try_open, [s.path for s in samples]), strict=True), start=1
    ):
        if isinstance(answer, str):
            findings.append(Finding(str(sample.path), answer))
        else:
            readable.append(sample)
            store.keep(sample.path, answer)
        listener.advance(done)
    listener.finish()
    return readable, store, findings


def open_briefly(
    samples: Sequence[Sample], pictures: "Pictures", listener: Listener, world: World
) -> tuple[tuple[Sample, ...], list[Finding]]:
    """Open pictures that are not trained on, keeping none: the readable samples, and a finding for each other."""
    title = "opening pictures of validation and test"
    if world.size > 1:
        from taxonet.training.shared_pictures import SharedPictures, open_shared

        assert isinstance(pictures, SharedPictures)
        found = open_shared(samples, pictures, listener, world, title, keep=False)
        return tuple(found[0]), found[1]
    answers = read_ahead(lambda sample: pictures.try_open(sample.path), samples)
    readable: list[Sample] = []
    findings: list[Finding] = []
    listener.start(title, len(samples))
    for done, (sample, answer) in enumerate(zip(samples, answers, strict=True), start=1):
        if isinstance(answer, str):
            findings.append(Finding(str(sample.path), answer))
        else:
            readable.append(sample)
        listener.advance(done)
    listener.finish()
    return tuple(readable), findings


class Pictures:
    """Decoded pictures at working size, by path; beyond `budget` bytes they are decoded again at each use."""

    def __init__(self, short_side: int, mode: Mode, budget: int) -> None:
        self.short_side, self.mode, self.budget = short_side, mode, budget
        self.used = 0
        self._kept: dict[Path, PIL.Image.Image] = {}

    def open(self, path: Path) -> PIL.Image.Image:
        """The picture at working size; the same pixels whether it was kept or not."""
        kept = self._kept.get(path)
        return kept if kept is not None else self._decode(path)

    def try_open(self, path: Path) -> PIL.Image.Image | str:
        """The picture, or the reason why it cannot be read."""
        try:
            return self._decode(path)
        except ImageError as error:
            return str(error)

    def keep(self, path: Path, image: PIL.Image.Image) -> bool:
        """Remember a decoded picture if there is room; whether there was."""
        size = image.width * image.height * len(image.getbands())
        if self.used + size > self.budget:
            return False
        self._kept[path] = image
        self.used += size
        return True

    def _decode(self, path: Path) -> PIL.Image.Image:
        image = decode(path, mode=self.mode, short_side=self.short_side)
        ratio = self.short_side / min(image.size)
        if ratio >= 1:
            return image
        size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
        return image.resize(size, PIL.Image.Resampling.BICUBIC)


def _free_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 * 2**30


def fingerprint(splits: Mapping[str, Sequence[Sample]], source: Path) -> str:
    """A hash of names, labels, sizes and order in each split: two runs on the same pictures have the same."""
    digest = hashlib.sha256()
    root = source if source.is_dir() else source.parent
    for split, samples in splits.items():
        for sample in samples:
            name = os.path.relpath(sample.path, root)
            line = f"{split}\t{name}\t{sample.label}\t{size_of(sample.path)}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, -1 of one that has gone."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
