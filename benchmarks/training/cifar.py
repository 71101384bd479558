"""CIFAR-10 from scratch on a CPU: test accuracy against epoch, for as many epochs as fit an hour of a small machine.

    python benchmarks/training/cifar.py --data CIFAR --work FOLDER [--plot curves.svg] [--json curves.json]

CIFAR holds class folders of PNG files under `train` and `test` (the repository cyizhuo/CIFAR-10-dataset). Both networks
see all 50,000 training pictures and are measured on the 10,000 test pictures after each epoch; nothing is chosen by
that: what counts is the last epoch. `densenet_bc_40_12` takes its paper's recipe with the schedule drawn together (300
epochs there), `mobilenet_v2_cifar` the recipe `scratch`. Runs stand in --work and go on from where they were stopped.
Twelve and seven epochs are no statement about three hundred.
"""

import argparse
import json
from pathlib import Path

import taxonet

RUNS = {
    "densenet_bc_40_12": {"recipe": "paper", "epochs": 12},
    "mobilenet_v2_cifar": {"recipe": "scratch", "epochs": 7, "batch_size": 128},
}


def as_validation(cifar: Path, folder: Path) -> Path:
    """The data set with its test pictures as validation, by links."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", "train"), ("val", "test")):
        if not (folder / name).exists():
            (folder / name).symlink_to((cifar / part).absolute())
    return folder


def curve(model: str, data: Path, out: Path) -> list[dict]:
    """One line an epoch: trained here, resumed, or read where it is finished."""
    if not (out / "model.safetensors").exists():
        if out.exists():
            taxonet.train(data, out=out, resume=True, explain=False)
        else:
            taxonet.train(data, model=model, weights="none", out=out, explain=False, **RUNS[model])
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def plot(path: Path, curves: dict[str, list[dict]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for model, lines in curves.items():
        axes.plot([line["epoch"] for line in lines], [line["val_top1"] for line in lines], marker="o", label=model)
    axes.set(xlabel="epoch", ylabel="top-1 on 10,000 test pictures", ylim=(0.4, 1), title="CIFAR-10 from scratch")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = as_validation(options.data, options.work / "cifar")
    curves = {}
    for model in options.models:
        curves[model] = curve(model, data, options.work / model)
        tops = "  ".join(f"{line['val_top1']:.3f}" for line in curves[model])
        print(f"{model:<20} test top-1 by epoch: {tops}", flush=True)
    if options.plot:
        plot(options.plot, curves)
    if options.json:
        options.json.write_text(json.dumps(curves, indent=1))


if __name__ == "__main__":
    main()
