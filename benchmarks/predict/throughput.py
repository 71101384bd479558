"""From photo files to labels, photos a second: Taxonet against what a user would pick instead.

    pip install --no-deps --target PEERS timm==1.0.31 'torchvision==0.28.*' transformers==5.24.0 tokenizers regex
    PYTHONPATH=PEERS python benchmarks/predict/throughput.py [--networks resnet50 …] [--photos 500 12mp] [--json FILE]

Every contender gets the same files, weights, preprocessing and cores, in a process of its own, in turn, round after
round; figures are medians of the rounds. Labels are compared with Taxonet's, so that nobody is timed computing
something else (a scaled decode differs by a little, so near ties may fall otherwise). Files come from the system's
cache. The machine's own limit is what decoding alone and the network alone allow together, 1 / (1 / decode +
1 / network), both measured in the same rounds. `peers.py` says what each contender does, `networks.py` where weights
are real, `photos.py` how photos are made.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import script
from peers import THROUGHPUT
from photos import KINDS, make_photos
from race import Result, agreement, race, ratio

OUR_NAME = "taxonet"
COUNTS = {"500": 256, "12mp": 64}
TARGETS = (  # ours, peers of which the fastest counts, times as fast
    ("taxonet", ("timm",), 5.0),
    ("taxonet", ("transformers",), 5.0),
    ("taxonet", ("torch.compile",), 3.0),
    ("taxonet", ("onnxruntime", "openvino"), 1.5),
    ("taxonet int8", ("onnxruntime", "openvino"), 2.5),
)
LINE = "{:<18} {:>8}  {:>16}  {:>10}  {:>12}  {:>7}  {}"
LIMIT_SHARE = 0.85
POINTS = 1  # that int8 may lose, here of the labels of float32, since the photos have none of these classes
LIMIT_OF = {"taxonet": "network only", "taxonet int8": "network only int8"}


def measure(options: argparse.Namespace, network: str, kind: str, folder: Path) -> dict[str, Any]:
    count = options.count or COUNTS[kind]
    photos = make_photos(folder / f"photos-{kind}", kind, count, options.data)[:count]
    files = script.prepared(options, network, folder, photos)
    results = race(options.only, files, photos, options.rounds, options.under, say)
    row = summary(results, count)
    row |= {"network": network, "photos": kind, "count": count, "weights": files.weights}
    row["mean_kb"] = statistics.mean(path.stat().st_size for path in photos) / 1000
    return row


def summary(results: dict[str, Result], count: int) -> dict[str, Any]:
    """The JSON of one network on one kind of photos."""
    ours = results.get(OUR_NAME)
    rows = {}
    for name, result in results.items():
        row: dict[str, Any] = {"setting": result.setting, "missing": result.missing, "trials": result.trials}
        if result.seconds and not result.missing:
            row["rate"] = statistics.median(result.rates(count))
            row["rates"] = result.rates(count)
            row["peak_mb"] = result.peak_mb
            if ours and ours.seconds and not ours.missing:
                row["ours_over_it"] = ratio(ours, result)
                row["labels_equal"] = agreement(ours, result)
        rows[name] = row
    return {"contenders": rows, "distinct_labels": len(set(ours.labels)) if ours else None, "limits": limits(rows)}


def limits(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The machine's limit for each of ours that has one, and the share reached."""
    found = {}
    for own, network in LIMIT_OF.items():
        rates = [rows.get(name, {}).get("rate") for name in ("decode only", network)]
        if all(rates):
            limit = 1 / sum(1 / rate for rate in rates)
            found[own] = {"limit": limit, "share": rows[own]["rate"] / limit if "rate" in rows.get(own, {}) else None}
    return found


def targets(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target with what was reached."""
    rows, found = row["contenders"], []
    for own, peers, least in TARGETS:
        rates = {peer: rows[peer]["rate"] for peer in peers if "rate" in rows.get(peer, {})}
        if rates and "rate" in rows.get(own, {}):
            peer = max(rates, key=rates.__getitem__)
            name = f"{own} / {'better of ' if len(peers) > 1 else ''}{' and '.join(peers)}"
            target = {"target": name, "least": least, "reached": rows[own]["rate"] / rates[peer]}
            if "int8" in own and "labels_equal" in rows[own]:
                target["points_lost"] = 100 * (1 - rows[own]["labels_equal"])
            found.append(target)
    for own, limit in row["limits"].items():
        if limit["share"]:
            found.append({"target": f"{own} / machine's limit", "least": LIMIT_SHARE, "reached": limit["share"]})
    return found


def show(row: dict[str, Any]) -> None:
    photos = f"{row['count']} photos of {KINDS[row['photos']].words} (mean {row['mean_kb']:,.0f} KB)"
    print(f"\n{row['network']}, {row['weights']} weights, {photos}, {row['distinct_labels']} different labels")
    print(LINE.format("", "photos/s", "low to high", "taxonet is", "labels equal", "peak MB", "setting"))
    for name, one in row["contenders"].items():
        if "rate" not in one:
            print(f"{name:<18} not measured: {one['missing']}")
            continue
        spread = f"{min(one['rates']):.1f} to {max(one['rates']):.1f}"
        times = f"{one['ours_over_it']:.2f} ×" if "ours_over_it" in one else ""
        same = one.get("labels_equal")
        equal = "" if same is None else f"{same:.1%}"
        setting = ", ".join(f"{key} {value}" for key, value in one["setting"].items())
        rate, peak = f"{one['rate']:.1f}", f"{one['peak_mb']:.0f}"
        print(LINE.format(name, rate, spread, times, equal, peak, setting).rstrip())
    for own, limit in row["limits"].items():
        share = f", of which {own} reaches {limit['share']:.2f}" if limit["share"] else ""
        print(f"limit of this machine for {own}: {limit['limit']:.1f} photos/s{share}")
    for target in row["targets"]:
        verdict = "reached" if target["reached"] >= target["least"] else "missed"
        if target.get("points_lost", 0) > POINTS:
            verdict += f" in speed; {target['points_lost']:.1f} points of the labels change, more than {POINTS}"
        print(f"target {target['target']}: at least {target['least']}, {target['reached']:.2f}, {verdict}")
    sys.stdout.flush()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    made = script.parser(__doc__)
    made.add_argument("--photos", nargs="+", default=list(KINDS), choices=list(KINDS))
    made.add_argument("--count", type=int, help=f"photos; by default {COUNTS}")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--only", nargs="+", default=THROUGHPUT, choices=THROUGHPUT, help="contenders; by default all")
    script.add_forms(made)
    return script.parsed(made)


def measured(options: argparse.Namespace, network: str, kind: str, folder: Path) -> dict[str, Any]:
    row = measure(options, network, kind, folder)
    return row | {"targets": targets(row)}


def main() -> None:
    options = arguments()
    script.run(options, [(network, kind) for kind in options.photos for network in options.networks], measured, show)


if __name__ == "__main__":
    main()
