"""`taxonet train`."""

import dataclasses
from pathlib import Path
from typing import Any

from taxonet.cli.numbers import MaybeWhole, Whole
from taxonet.cli.output import print_json
from taxonet.errors import UsageError, nearest
from taxonet.processes import speaks

INTERRUPTED = 130
OWN = (
    "model",
    "out",
    "recipe",
    "weights",
    "budget",
    "exclude",
    "check",
    "resume",
    "json",
    "keep-memory",
    "explain",
    "device",
    "keep-checkpoints",
    "checkpoint-seconds",
    "log",
)


def train(
    data: Path,
    /,
    *,
    model: str | None = None,
    out: Path,
    recipe: str | None = None,
    weights: str = "auto",
    budget: str | None = None,
    exclude: Path | None = None,
    check: bool = True,
    resume: bool = False,
    keep_memory: bool = True,
    log: str | None = None,
    keep_checkpoints: Whole = 2,
    checkpoint_seconds: float = 120.0,
    explain: bool = True,
    device: str = "auto",
    json: bool = False,
    epochs: MaybeWhole = None,
    batch_size: MaybeWhole = None,
    image_size: MaybeWhole = None,
    lr: float | None = None,
    seed: MaybeWhole = None,
    val_fraction: float | None = None,
    **values: str,
) -> int:
    """Train a network on a folder of pictures; the run's folder gets a bundle and a report.

    Any value of a recipe is an option too: --optimizer, --weight-decay, --augmentation, --label-smoothing,
    --ema-decay, --schedule, …; the recipe is printed in full when a run starts, with these names.

    Regularise: --mixup 0.2, --cutmix 1.0 (α), --stochastic-depth 0.2, --augmentation "… | rand_augment(2, 9)".
    Gradients: --clip-norm 1.0, --agc 0.01 (every unit's to that share of its weights, for networks without norms),
    --accumulate 4 (a step takes 4 batches). Classes of unequal size: --balance auto|none|sampling|loss.
    Stop when the validation loss has not fallen for 5 epochs, and keep the best: --patience 5.
    Learn from a larger model: --teacher BUNDLE|NAME, --distill-weight 0.5, --distill-temperature 4.
    Speed: --precision auto|float32|bfloat16, --channels-last false, --compile true.

    Several processes: torchrun --nproc-per-node 2 -m taxonet train … . The batch is divided among them, the rest of
    the recipe stays; torchrun gives each one thread, OMP_NUM_THREADS=8 before it gives eight. With --max-restarts a run
    goes on by itself after a process was lost. Started so, findings leave the exit status at 0.

    Parameters
    ----------
    data
        A folder of class folders, with or without train/, val/ and test/ above them, or a CSV/Parquet table.
    model
        The network's name; efficientnet_lite0 where nothing is said.
    out
        The run's folder.
    recipe
        finetune, scratch, paper, features (the classifier alone on the frozen network: seconds instead of minutes), or
        a TOML file; by default finetune where there are weights, else scratch.
    weights
        What to start from: auto (what is installed or pulled), none, weights of `taxonet pull --list`, which are
        brought where they are not here, or a file: a bundle or a checkpoint of torchvision, timm or another library.
    budget
        The time that the command may take, as in 90s, 10m, 1h30m: network, picture size, epochs and recipe are chosen
        for it, as far as they are not given, by measuring on these pictures; the choice and its reasons are printed.
        Networks whose weights are here are tried; nothing is brought. A run that turns out slower is shortened in time.
    exclude
        A list of pictures to leave out, one path a line, counted from DATA; taxonet check --exclude-out writes one.
    check
        Leave copies of validation and test pictures out of training; warn of photos in two classes.
    resume
        Go on with the run in the folder; its model, weights, recipe and list are used again.
    keep_memory
        On Linux, keep freed memory: faster steps, more resident memory.
    log
        Where figures go besides log.jsonl: tensorboard, mlflow, or both with a comma between. With --resume those of
        the run's beginning where nothing is said, "" for none.
    keep_checkpoints
        How many checkpoints stay in last/; a damaged one is passed over for the one before.
    checkpoint_seconds
        The time between checkpoints within an epoch.
    explain
        Show in the report what spoke for the worst mistakes (Grad-CAM), where captum is installed.
    device
        cpu, cuda, or auto: the GPU where torch finds one.
    json
        One JSON document on stdout at the end.
    epochs
        How often every picture is seen.
    batch_size
        Pictures a step.
    image_size
        Pixels of a side of what the network sees.
    lr
        The largest learning rate.
    seed
        Of the split, the order, the augmentation and the fresh weights.
    val_fraction
        The share of each class that is held out where the data has no validation pictures.
    values
        Any other value of the recipe, as in --weight-decay 0.01.
    """
    from taxonet.training import train as run_training

    named = {
        "epochs": epochs,
        "batch_size": batch_size,
        "image_size": image_size,
        "lr": lr,
        "seed": seed,
        "val_fraction": val_fraction,
    }
    overrides = {key: value for key, value in named.items() if value is not None} | _recipe_values(values)
    result = run_training(
        data,
        model=model,
        out=out,
        recipe=recipe,
        weights=weights,
        budget=budget,
        exclude=exclude,
        check=check,
        resume=resume,
        keep_memory=keep_memory,
        log=log,
        keep_checkpoints=keep_checkpoints,
        checkpoint_seconds=checkpoint_seconds,
        explain=explain,
        device=device,
        progress=True,
        **overrides,
    )
    if json and speaks():  # torchrun: one process prints
        print_json(result.as_dict())
    if result.interrupted:
        return INTERRUPTED
    return 1 if result.findings else 0


def _recipe_values(words: dict[str, str]) -> dict[str, Any]:
    """Options that stand for a value of the recipe, converted to the value's type."""
    from taxonet.training import Recipe

    fields = {spec.name: spec for spec in dataclasses.fields(Recipe)}
    values: dict[str, Any] = {}
    for name, word in words.items():
        key = name.replace("-", "_")
        if key not in fields:
            known = [f"--{option.replace('_', '-')}" for option in (*OWN, *fields)]
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"train has no option '{option}'{nearest(option, known)}")
        values[key] = _converted(key, word, type(fields[key].default))
    return values


def _converted(name: str, word: str, kind: type) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False, "yes": True, "no": False}[word.lower()]
        if kind is tuple:
            return tuple(float(part) for part in word.split(","))
        return kind(word)
    except (ValueError, KeyError) as error:
        words = {bool: "true or false", tuple: "numbers with commas between", int: "a whole number", float: "a number"}
        raise UsageError(f"--{name.replace('_', '-')} is '{word}', it must be {words.get(kind, 'text')}") from error
