"""Claim: where classes differ much in size, balancing them raises the mean recall over classes.

    python benchmarks/training/balance.py --data photos --image-size 96 --epochs 8 --seeds 0 1 2 --plot balance.svg

The training pictures are thinned to a skewed copy (class k of K keeps n · ratio^(−k/(K−1)) pictures), the validation
pictures stay as they are: with classes of equal size there, top-1 is the mean recall. Every setting sees the same
pictures under the same seeds; a difference counts when it is larger than its standard error over the seeds twice.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import taxonet
from taxonet.data import read_data, stratified_split

SETTINGS = {
    "none": {"balance": "none"},
    "sampling": {"balance": "sampling"},
    "loss, effective": {"balance": "loss", "balance_weights": "effective"},
    "loss, inverse": {"balance": "loss", "balance_weights": "inverse"},
}


def skewed_copy(data: str, folder: Path, ratio: float) -> list[int]:
    """Links to the pictures: a validation split of a fifth, and a training split thinned class by class."""
    train, val = stratified_split(read_data(data).samples, 0.2, 0)
    classes = sorted({sample.label for sample in train})
    sizes = []
    for place, label in enumerate(classes):
        mine = [sample for sample in train if sample.label == label]
        kept = mine[: max(1, round(len(mine) * ratio ** (-place / (len(classes) - 1))))]
        sizes.append(len(kept))
        link(folder / "train" / label, kept)
        link(folder / "val" / label, [sample for sample in val if sample.label == label])
    return sizes


def link(folder: Path, samples) -> None:
    folder.mkdir(parents=True)
    for number, sample in enumerate(samples):
        (folder / f"{number:05d}{sample.path.suffix}").symlink_to(sample.path.absolute())


def run(data: Path, out: Path, options: argparse.Namespace, seed: int, values: dict) -> dict:
    result = taxonet.train(
        data,
        out=out,
        model=options.model,
        weights=options.weights,
        recipe=options.recipe,
        image_size=options.image_size,
        epochs=options.epochs,
        seed=seed,
        **values,
    )
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    recalls = [score.recall for score in result.validation.metrics.per_class]
    return {"macro": result.validation.metrics.balanced_accuracy, "recalls": recalls, "log": log}


def plot(path: str, found: dict[str, list[dict]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("val_loss", "val_top1"), strict=True):
        for name, runs in found.items():
            curves = zip(*([line[key] for line in one["log"]] for one in runs), strict=True)
            means = [statistics.mean(values) for values in curves]
            axes.plot(range(1, len(means) + 1), means, marker="o", markersize=3, label=name)
        axes.set(title=f"{key}, mean of {len(runs)} seeds", xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path)


def report(found: dict[str, list[dict]], baseline: str, figure: str) -> None:
    for name, runs in found.items():
        values = [one[figure] for one in runs]
        line = f"{name:<16} {figure} {statistics.mean(values):.3f}  ({', '.join(f'{v:.3f}' for v in values)})"
        losses = [one["log"][-1]["val_loss"] for one in runs]
        line += f"  validation loss {statistics.mean(losses):.3f}"
        if name != baseline and len(values) > 1:
            pairs = [value - other[figure] for value, other in zip(values, found[baseline], strict=True)]
            error = statistics.stdev(pairs) / len(pairs) ** 0.5
            verdict = (
                "more"
                if statistics.mean(pairs) > 2 * error
                else "less"
                if statistics.mean(pairs) < -2 * error
                else "within noise of"
            )
            line += f"  {statistics.mean(pairs):+.3f} ± {error:.3f}, {verdict} {baseline}"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--recipe", default="finetune")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--ratio", type=float, default=16.0, help="largest class over smallest")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--plot", help="an SVG or PNG with the curves")
    options = parser.parse_args()
    found: dict[str, list[dict]] = {name: [] for name in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        sizes = skewed_copy(options.data, Path(folder) / "data", options.ratio)
        print(f"training pictures by class: {sizes}", flush=True)
        for seed in options.seeds:
            for name, values in SETTINGS.items():
                out = Path(folder) / f"{name}-{seed}"
                found[name].append(run(Path(folder) / "data", out, options, seed, values))
    report(found, "none", "macro")
    for name, runs in found.items():
        means = [statistics.mean(values) for values in zip(*(one["recalls"] for one in runs), strict=True)]
        print(f"{name:<16} recall by class: {'  '.join(f'{value:.2f}' for value in means)}")
    if options.plot:
        plot(options.plot, found)


if __name__ == "__main__":
    main()
