"""One photo at a time, warm, from file to label: `Classifier.predict(photo)` against OpenVINO's latency mode.

    PYTHONPATH=PEERS python benchmarks/predict/latency.py [--networks resnet50 …] [--photos 500 12mp] [--int8]

Every contender is loaded and warm in a process of its own and answers the same photos one by one, in turn, round after
round: medians (p50) and the 90th percentile over all photos of all rounds. The peers decode with Pillow in full, as
their documentation does. Packages and weights as for throughput.py.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import script
from peers import LATENCY
from photos import KINDS, make_photos
from race import Alone, Runner, own_threads

from networks import Files

WARM_UP = 5
TARGET = ("taxonet", "openvino latency")
LINE = "{:<18} {:>8}  {:>8}  {:>10}  {:>12}"


def measure(options: argparse.Namespace, network: str, kind: str, folder: Path) -> dict[str, Any]:
    photos = make_photos(folder / f"photos-{kind}", kind, options.count, options.data)
    files = script.prepared(options, network, folder, photos)
    row = {"network": network, "photos": kind, "count": options.count, "rounds": options.rounds}
    return row | {"contenders": in_turn(options, files, photos)}


def in_turn(options: argparse.Namespace, files: Files, photos: list[Path]) -> dict[str, dict[str, Any]]:
    """Milliseconds and labels of every contender."""
    own_threads()
    runners = [Runner(name, files, photos) for name in options.only]
    found: dict[str, dict[str, Any]] = {runner.name: {"ms": [], "labels": []} for runner in runners}
    try:
        with Alone(options.under) as turn:
            for runner in runners:
                runner.ask("open")
                runner.ask("singly", WARM_UP)
                turn.between()
            for number in range(options.rounds):
                first = number % len(runners)
                for runner in runners[first:] + runners[:first]:
                    seconds, labels = runner.ask("singly", options.count) or ([], [])
                    found[runner.name]["ms"] += [1000 * value for value in seconds]
                    found[runner.name]["labels"] = labels
                turn.between()
    finally:
        for runner in runners:
            runner.close()
    return {runner.name: percentiles(found[runner.name]) | {"missing": runner.result.missing} for runner in runners}


def percentiles(found: dict[str, Any]) -> dict[str, Any]:
    if not found["ms"]:
        return found
    p50, p90 = np.percentile(found["ms"], (50, 90))
    return found | {"p50": p50, "p90": p90}


def show(row: dict[str, Any]) -> None:
    rows = row["contenders"]
    print(f"\n{row['network']}, {row['count']} photos of {KINDS[row['photos']].words}, {row['rounds']} rounds")
    print(LINE.format("", "p50, ms", "p90, ms", "of its p50", "labels equal"))
    ours = rows.get("taxonet", {})
    for name, one in rows.items():
        if "p50" not in one:
            print(f"{name:<18} not measured: {one['missing']}")
            continue
        share = f"{ours['p50'] / one['p50']:.2f}" if "p50" in ours else ""
        same = np.mean(np.equal(ours["labels"], one["labels"])) if "p50" in ours else np.nan
        print(LINE.format(name, f"{one['p50']:.1f}", f"{one['p90']:.1f}", share, f"{same:.1%}"))
    if all("p50" in rows.get(name, {}) for name in TARGET):
        reached = rows[TARGET[0]]["p50"] / rows[TARGET[1]]["p50"]
        print(
            f"target {TARGET[0]} / {TARGET[1]}: at most 1.0, {reached:.2f}, {'reached' if reached <= 1 else 'missed'}"
        )
    sys.stdout.flush()


def arguments() -> argparse.Namespace:
    made = script.parser(__doc__)
    made.add_argument("--photos", nargs="+", default=list(KINDS), choices=list(KINDS))
    made.add_argument("--count", type=int, default=40, help="photos")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--only", nargs="+", default=LATENCY, choices=LATENCY, help="contenders; by default all")
    script.add_forms(made)
    return script.parsed(made)


def main() -> None:
    options = arguments()
    script.run(options, [(network, kind) for kind in options.photos for network in options.networks], measure, show)


if __name__ == "__main__":
    main()
