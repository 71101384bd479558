"""`taxonet compare`."""

import json as json_module
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from taxonet.cli.numbers import MaybeWhole, Whole
from taxonet.cli.output import check_page, print_findings, print_json, print_table
from taxonet.errors import UsageError
from taxonet.figures import short_count

if TYPE_CHECKING:
    from taxonet.evaluation.comparison import Compared, Comparison

INTERRUPTED = 130
RUNS = 30


def compare(
    what: Annotated[list[str], Parameter(negative="")],
    /,
    *,
    data: Path | None = None,
    split: str | None = None,
    common: bool = False,
    engine: str = "auto",
    runs: Whole = RUNS,
    html: Path | None = None,
    json: bool = False,
    models: str | None = None,
    out: Path | None = None,
    epochs: Annotated[MaybeWhole, Parameter(alias="--budget-epochs")] = None,
    recipe: str | None = None,
    weights: str | None = None,
    budget: str | None = None,
    batch_size: MaybeWhole = None,
    image_size: MaybeWhole = None,
    lr: float | None = None,
    seed: MaybeWhole = None,
    val_fraction: float | None = None,
    device: str | None = None,
    resume: bool = False,
) -> int:
    """Compare models on the same photos: paired tests, speed, size, and the photos on which they disagree.

    `compare MODEL MODEL… --data DATA` compares models that stand; `compare DATA --models a,b,c --epochs N --out DIR`
    trains the networks a, b and c first, on the same split with the same recipe and seed; with --budget 10m in place of
    --epochs, each for the same time.

    Parameters
    ----------
    what
        Two or more bundles or networks with pretrained weights; with --models the data to train on.
    data
        A folder of class folders, or a CSV/Parquet table with path and label.
    split
        train, val or test; by default test where the data has it, else val, else everything.
    common
        Where the models know different classes: compare on the photos of those that all know, answers among these.
    engine
        What runs the models: auto (the fastest that agrees with torch, measured once), torch, openvino or onnxruntime.
    runs
        How often single photos are timed, the models in turn; 0 leaves the timing out.
    html
        Write one self-contained page to this file.
    json
        One JSON document on stdout.
    models
        Networks to train first, with commas between.
    out
        With --models: the folder for the runs, comparison.html and comparison.json.
    epochs
        With --models: how often every picture is seen, the same for all.
    recipe
        With --models: finetune, scratch, paper or a TOML file, the same for all.
    weights
        With --models: auto (pretrained where all have some, else all fresh), own (each what it has), or none.
    budget
        With --models: the time that the training of each network may take, as in 10m; so three networks take 30
        minutes. Picture size, epochs and recipe are chosen for each, as far as they are not given.
    batch_size
        With --models: pictures a step.
    image_size
        With --models: pixels of a side of what the networks see; by default each network's own.
    lr
        With --models: the largest learning rate.
    seed
        With --models: of the split, the order, the augmentation and the fresh weights.
    val_fraction
        With --models: the share of each class that is held out where the data has no validation pictures.
    device
        With --models: what trains the networks: cpu, cuda, or auto (the GPU where torch finds one).
    resume
        With --models: go on with what stands in the folder.
    """
    check_page(html)
    training = {
        "out": out,
        "epochs": epochs,
        "recipe": recipe,
        "weights": weights,
        "budget": budget,
        "batch_size": batch_size,
        "image_size": image_size,
        "lr": lr,
        "seed": seed,
        "val_fraction": val_fraction,
        "device": device,
    }
    asked = {key: value for key, value in training.items() if value is not None} | ({"resume": True} if resume else {})
    if models is not None:
        _check_training(what, data, split, common, out)
        return _train_first(what[0], models.split(","), asked, engine, runs, html, json)
    if asked:
        option = next(iter(asked)).replace("_", "-")
        raise UsageError(f"--{option} is for training first: taxonet compare DATA --models a,b --out DIR")
    if data is None:
        raise UsageError("compare needs --data DATA, the photos to compare on (or --models to train first)")
    return _compare(what, data, split, common, engine, runs, html, json)


def _check_training(what: Sequence[str], data: Path | None, split: str | None, common: bool, out: Path | None) -> None:
    if len(what) != 1 or data is not None:
        raise UsageError("with --models one DATA is wanted and nothing else: taxonet compare DATA --models a,b")
    if split is not None or common:
        option = "--common" if common else "--split"
        raise UsageError(f"{option} does not go with --models: all are trained on one data set and compared on its val")
    if out is None:
        raise UsageError("with --models a folder for the runs is wanted: --out DIR")


def _compare(
    models: Sequence[str],
    data: Path,
    split: str | None,
    common: bool,
    engine: str,
    runs: int,
    html: Path | None,
    json: bool,
) -> int:
    from taxonet.console import Terminal, follow_parts
    from taxonet.evaluation.comparison import compare as compare_models

    with Terminal() as terminal:
        result = compare_models(
            models, data, split=split, common=common, engine=engine, runs=runs, progress=follow_parts(terminal)
        )
    if html is not None:
        from taxonet.evaluation.comparison_page import write_comparison

        words = ["taxonet", "compare", *models, "--data", str(data), "--split", result.split]
        words = words[:-2] if split is None else words
        write_comparison(html, result, shlex.join([*words, *(["--common"] if common else []), "--html", str(html)]))
    if json:
        print_json(result.as_dict())
    else:
        _print(result)
        print(f"page: {html}" if html else "--html FILE shows the photos on which the models disagree")
    return 1 if result.findings else 0


def _train_first(
    data: str, models: Sequence[str], asked: dict[str, Any], engine: str, runs: int, html: Path | None, json: bool
) -> int:
    from taxonet.evaluation.comparison_page import write_comparison
    from taxonet.files import write_atomically
    from taxonet.training import train_and_compare

    out = asked["out"]
    result = train_and_compare(data, models, engine=engine, runs=runs, progress=True, **asked)
    if json:
        print_json(result.as_dict())
    if result.comparison is None:
        return INTERRUPTED
    words = ["taxonet", "compare", data, "--models", ",".join(models)]
    for key, value in asked.items():
        if key not in ("out", "resume"):
            words += [f"--{key.replace('_', '-')}", str(value)]
    words += [] if engine == "auto" else ["--engine", engine]
    command = shlex.join([*words, "--out", f"{out}-again"])
    text = json_module.dumps(result.as_dict(), indent=2, ensure_ascii=False)
    write_atomically(out / "comparison.json", text.encode(errors="backslashreplace"))
    pages = [out / "comparison.html", *([html] if html else [])]
    for page in pages:
        write_comparison(page, result.comparison, command, result.notes)
    if not json:
        for note in result.notes:
            print(note)
        print()
        _print(result.comparison)
        print(f"page: {pages[-1]}")
    return 1 if result.findings or result.comparison.findings else 0


def _print(result: "Comparison") -> None:
    only = ", only classes that all models know" if result.restricted else ""
    print(f"photos   {result.n}  (split: {result.split}{only})\n")
    header = ["model", "top-1", "95 % interval", "log-loss"]
    if result.models[0].speed:
        header += ["one photo", "network", f"batch of {result.models[0].speed.batch_size}"]
    header += ["file", "params", "multiply-adds", "front"]
    numbers = frozenset(range(1, len(header) - 1))
    print_table(header, [_row(model) for model in result.models], right=numbers)
    if result.models[0].speed:
        machine = result.machine
        load = "" if machine.load is None else f", load {machine.load:.1f} before the start"
        print(
            f"\ntimes: ms a photo, medians of {result.models[0].speed.single.runs} rounds with the models in turn "
            f"(quartiles: --json); {machine.cpu}, {machine.threads} of {machine.cores} cores{load}"
        )
    print(
        "front: no other model is at least as accurate and at least as fast (small), and better in one of the two; "
        "times within each other's quartiles and sizes within 1 % count as equal\n"
    )
    for warning in result.warnings:
        print(f"warning: {warning}")
    for sentence in result.sentences:
        print(f"{sentence}.")
    print(f"\nthe answers differ on {len(result.disagreements)} of {result.n} photos")
    if result.outside:
        print(f"left out: {result.outside} photos of classes that not all models know")
    if result.findings:
        print(f"\nnot compared ({len(result.findings)}):")
        print_findings(result.findings)


def _row(model: "Compared") -> list[str]:
    from taxonet.evaluation.comparison_page import file_size

    low, high = model.metrics.top1_ci
    cells = [model.name, f"{model.metrics.top1:.4f}", f"{low:.4f} to {high:.4f}", f"{model.metrics.log_loss:.4f}"]
    if model.speed:
        times = (model.speed.single, model.speed.single_network, model.speed.batch)
        cells += [f"{timing.median:.1f}" for timing in times]
    front = [word for word, best in (("speed", model.best_for_speed), ("size", model.best_for_size)) if best]
    return [*cells, file_size(model.bytes), short_count(model.params), short_count(model.macs), ", ".join(front)]
