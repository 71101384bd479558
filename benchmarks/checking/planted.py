"""Claim: `taxonet check` finds what is wrong with a data set; here is how much of it, and how many false alarms.

    python benchmarks/checking/planted.py --data PHOTOS --seeds 0 1 2 --json planted.json

A copy of the data (by default 60 pictures a class of the embedded Fashion-MNIST) is divided into train/ and val/, and
faults are planted in it: 20 exact copies, 10 across the splits, 15 swapped labels, 10 broken files, and others.
Recall is the share of the planted faults that are found under their kind. Precision counts every other finding of that
kind as a false alarm; how many of them the copy had before anything was planted stands beside it: some are true.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import taxonet
from taxonet.assets import write_fashion_mnist
from taxonet.data import read_data

Planted = dict[str, set[frozenset[str]]]  # of each kind: the paths that a finding must name
COUNTS = {
    "duplicate": 20,
    "duplicate_across_splits": 10,
    "label": 15,
    "broken": 10,
    "two_classes": 5,
    "near_duplicate": 10,
    "near_duplicate_across_splits": 5,
    "blank": 5,
    "dark": 5,
    "blurred": 5,
}


def divide(data: Path, root: Path, rng: np.random.Generator, per_class: int | None) -> None:
    """Copy every class into train/ (four fifths) and val/, under neutral names."""
    samples = read_data(data).samples
    for label in sorted({sample.label for sample in samples}):
        files = sorted(sample.path for sample in samples if sample.label == label)
        chosen = rng.permutation(len(files))[:per_class]
        for place, k in enumerate(chosen):
            folder = root / ("val" if place < len(chosen) // 5 else "train") / label
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(files[k], folder / f"{label}-{place:04d}{files[k].suffix.lower()}")


class Planter:
    """Plants faults; no picture is used twice."""

    def __init__(self, root: Path, rng: np.random.Generator) -> None:
        self.root, self.rng = root, rng
        self.planted: Planted = {kind: set() for kind in COUNTS}
        self.names: dict[str, list[Path]] = {}
        for split in ("train", "val"):
            files = sorted((root / split).rglob("*.*"))
            self.names[split] = [files[k] for k in rng.permutation(len(files))]

    def take(self, split: str = "train") -> Path:
        return self.names[split].pop()

    def remember(self, kind: str, *paths: Path) -> None:
        self.planted[kind].add(frozenset(path.relative_to(self.root).as_posix() for path in paths))

    def copy(self, kind: str, split: str, write: Callable[[Path, Path], None], suffix: str | None = None) -> None:
        """A copy in train of a picture of `split`, in the same class unless the kind says otherwise."""
        old = self.take(split)
        label = self.other(old.parent.name) if kind == "two_classes" else old.parent.name
        new = self.root / "train" / label / f"new-{self.rng.integers(10**9):09d}{suffix or old.suffix}"
        write(old, new)
        self.remember(kind, old, new)

    def other(self, label: str) -> str:
        return str(self.rng.choice(sorted(f.name for f in (self.root / "train").iterdir() if f.name != label)))

    def swap(self) -> None:
        old = self.take()
        new = self.root / "train" / self.other(old.parent.name) / f"new-{self.rng.integers(10**9):09d}{old.suffix}"
        old.rename(new)
        self.remember("label", new)

    def change(self, kind: str, how: Callable[[Image.Image], Image.Image]) -> None:
        path = self.take()
        with Image.open(path) as image:
            changed = how(image.convert("RGB"))
        changed.save(path, quality=90)
        self.remember(kind, path)

    def break_file(self, way: int) -> None:
        path = self.take()
        data = path.read_bytes()
        half = len(data) // 2
        contents = (data[:half], b"", b"<html>404 not found</html>", data[:half] + self.rng.bytes(len(data) - half))
        path.write_bytes(contents[way % len(contents)])
        self.remember("broken", path)


def blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(max(2.0, 3 * min(image.size) / 256)))


def recompress(old: Path, new: Path) -> None:
    with Image.open(old) as image:
        size = (max(1, image.width * 3 // 4), max(1, image.height * 3 // 4))
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(new, quality=60)


def plant(root: Path, rng: np.random.Generator) -> Planted:
    planter = Planter(root, rng)
    for _ in range(COUNTS["duplicate"]):
        planter.copy("duplicate", "train", shutil.copy)
    for _ in range(COUNTS["duplicate_across_splits"]):
        planter.copy("duplicate_across_splits", "val", shutil.copy)
    for _ in range(COUNTS["two_classes"]):
        planter.copy("two_classes", "train", shutil.copy)
    for _ in range(COUNTS["near_duplicate"]):
        planter.copy("near_duplicate", "train", recompress, ".jpg")
    for _ in range(COUNTS["near_duplicate_across_splits"]):
        planter.copy("near_duplicate_across_splits", "val", recompress, ".jpg")
    for _ in range(COUNTS["label"]):
        planter.swap()
    for way in range(COUNTS["broken"]):
        planter.break_file(way)
    for _ in range(COUNTS["blank"]):
        grey = int(rng.integers(256))
        planter.change("blank", lambda image, grey=grey: Image.new("RGB", image.size, (grey, grey, grey)))
    for _ in range(COUNTS["dark"]):
        planter.change("dark", lambda image: image.point(lambda level: level * 0.2))
    for _ in range(COUNTS["blurred"]):
        planter.change("blurred", blur)
    return planter.planted


def score(report: taxonet.CheckReport, before: taxonet.CheckReport, planted: Planted) -> dict[str, dict[str, float]]:
    figures = {}
    known = {(issue.kind, issue.path) for issue in before.issues}
    for kind, wanted in planted.items():
        issues = [issue for issue in report.issues if issue.kind == kind]
        named = [{issue.path, *issue.also} for issue in issues]
        hits = {paths for paths in wanted if any(paths <= names for names in named)}
        right = [any(paths <= names for paths in wanted) for names in named]
        wrong = [issue for issue, hit in zip(issues, right, strict=True) if not hit]
        figures[kind] = {
            "planted": len(wanted),
            "found": len(issues),
            "recall": len(hits) / len(wanted),
            "precision": sum(right) / len(issues) if issues else float("nan"),
            "there_before": sum((issue.kind, issue.path) in known for issue in wrong),
        }
        if kind == "label":
            figures[kind]["recall_in_first_30"] = sum(right[:30]) / len(wanted)
    return figures


def run(data: Path | None, seed: int, labels: bool, per_class: int | None) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        source = data or write_fashion_mnist(Path(folder, "fashion"))
        root = Path(folder, "planted")
        divide(source, root, rng, per_class)
        before = taxonet.check(root, labels=labels)
        planted = plant(root, rng)
        started = time.perf_counter()
        report = taxonet.check(root, labels=labels)
        seconds = time.perf_counter() - started
        if not labels:
            del planted["label"]
        figures = score(report, before, planted)
    print(f"\nseed {seed}: {report.n} pictures, {seconds:.1f} s; labels agree {report.labels.get('agreement', 0):.3f}")
    print(f"{'kind':<30}{'planted':>8}{'found':>7}{'recall':>8}{'precision':>11}{'there before':>14}")
    for kind, row in figures.items():
        print(
            f"{kind:<30}{row['planted']:>8}{row['found']:>7}{row['recall']:>8.2f}{row['precision']:>11.2f}"
            f"{row['there_before']:>14}"
            + (f"   recall in the first 30: {row['recall_in_first_30']:.2f}" if "recall_in_first_30" in row else "")
        )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of class folders; by default the embedded Fashion-MNIST")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--per-class", type=int, help="pictures a class; by default all, 60 of the embedded set")
    parser.add_argument("--no-labels", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    per_class = options.per_class or (None if options.data else 60)
    results = {s: run(options.data, s, not options.no_labels, per_class) for s in options.seeds}
    print(f"\nmean of {len(results)} seeds")
    for kind in next(iter(results.values())):
        recall, precision = (
            statistics.mean(r[kind][name] for r in results.values()) for name in ("recall", "precision")
        )
        print(f"{kind:<30} recall {recall:.3f}  precision {precision:.3f}")
    if options.json:
        options.json.write_text(json.dumps({"counts": COUNTS, "seeds": results}, indent=2))


if __name__ == "__main__":
    main()
