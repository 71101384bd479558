"""What the temperature and the threshold are worth on photos that neither saw (docs/evaluation.md, "Measured").

    python benchmarks/evaluation/calibration.py PHOTOS [--out FOLDER]

PHOTOS is a folder of class folders. Of each class a seeded shuffle takes 4/9 for training, 5/18 for validation and
5/18 for the test (40, 25 and 25 of 90). Two networks are fine-tuned at 160 pixels, with and without label smoothing;
temperature and threshold are chosen on validation, and everything is measured on the test photos.
"""

import argparse
import csv
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import taxonet
from taxonet.data import read_data
from taxonet.inference import Classifier

RUNS = {"label smoothing 0.1, 6 epochs": {"epochs": 6}, "none, 12 epochs": {"epochs": 12, "label_smoothing": 0.0}}


def split(photos: Path, table: Path) -> None:
    by_class: dict[str, list[Path]] = {}
    for sample in read_data(photos).samples:
        by_class.setdefault(sample.label, []).append(sample.path.absolute())
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for label in sorted(by_class):
            files = sorted(by_class[label])
            random.Random(0).shuffle(files)
            for i, path in enumerate(files):
                share = i / len(files)
                writer.writerow([path, label, "train" if share < 4 / 9 else "val" if share < 13 / 18 else "test"])


def figures(classifier: Classifier, table: Path) -> str:
    found = taxonet.evaluate(classifier, table, split="test").metrics
    return (
        f"top-1 {found.top1:.3f}, log-loss {found.log_loss:.3f}, ece {found.ece:.3f}, adaptive {found.ece_adaptive:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    table = out / "split.csv"
    split(arguments.photos, table)
    for number, (name, recipe) in enumerate(RUNS.items()):
        run = taxonet.train(table, out=out / f"run{number}", image_size=160, **recipe)
        trained = taxonet.load(run.bundle)
        plain = Classifier(replace(trained.info, temperature=1.0), trained.engine)
        print(f"{name}: temperature {trained.info.temperature:.3f}")
        print(f"  test, temperature 1:  {figures(plain, table)}")
        print(f"  test, as trained:     {figures(trained, table)}")
        for wanted in (0.9, 0.95):
            chosen = taxonet.calibrate(run.bundle, table, out=out / "threshold.safetensors", target_precision=wanted)
            if chosen.bundle is None:
                print(f"  precision {wanted}: {chosen.problem}")
                continue
            held_out, test = chosen.choice.held_out, taxonet.evaluate(chosen.bundle, table, split="test").selected
            for where, found in (("validation, held out", held_out), ("test", test)):
                if found:
                    low, high = found.precision_ci
                    print(
                        f"  precision {wanted}, {where}: answered {found.coverage:.3f}, "
                        f"right {found.precision:.3f} ({low:.3f} to {high:.3f})"
                    )


if __name__ == "__main__":
    main()
