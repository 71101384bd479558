"""`train`: a folder of pictures becomes a run with a bundle and a report."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taxonet.console import Listener, Silent, Terminal
from taxonet.errors import TrainingError, UsageError
from taxonet.networks.registry import find
from taxonet.processes import PeerLostError, World, join
from taxonet.training.allocator import keep_freed_memory
from taxonet.training.budget import PYTHON_SECONDS, Budget, kept_budget, plan
from taxonet.training.candidates import Wish
from taxonet.training.checkpoint import KEPT
from taxonet.training.duration import parse_duration
from taxonet.training.job import Job
from taxonet.training.loop import CHECKPOINT_SECONDS
from taxonet.training.opening import RECIPE, check_nothing_else_is_asked, check_same_weights, open_run
from taxonet.training.recipe import Recipe, given_values
from taxonet.training.results import TrainResult
from taxonet.training.screening import (
    asked_exclusions,
    kept_check,
    kept_exclusions,
    prepare,
)

DEFAULT_MODEL = "efficientnet_lite0"


def train(
    data: str | os.PathLike[str],
    *,
    model: str | None = None,
    out: str | os.PathLike[str],
    recipe: str | os.PathLike[str] | Recipe | None = None,
    weights: str | os.PathLike[str] = "auto",
    budget: str | None = None,
    exclude: str | os.PathLike[str] | None = None,
    check: bool = True,
    resume: bool = False,
    keep_memory: bool = True,
    log: str | None = None,
    keep_checkpoints: int = KEPT,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    explain: bool = True,
    device: str = "auto",
    progress: bool = False,
    **overrides: Any,
) -> TrainResult:
    """Train a network on labelled pictures.

    Args:
        data: a folder of class folders, with or without train/, val/ and test/ above them, or a CSV/Parquet table.
            Without validation pictures a stratified seeded part of the training pictures is held out.
        model: the network's name; efficientnet_lite0 where nothing is said.
        out: the run's folder: recipe.toml, log.jsonl, last/, model.safetensors, report.html.
        recipe: "finetune", "scratch", "paper", "features" (the classifier alone, on features of the frozen network: the
            fast path for small sets), a TOML file or a `Recipe`; by default finetune where there are weights.
        weights: what to start from: "auto" (the catalogue's, where they are here), "none", a name of the catalogue
            (`densenet121.tv_in1k`), or a file: a bundle or a known checkpoint.
        budget: "90s", "10m", "1h30m": the time that the command may take from its start to its report. What is not
            given of model, image_size, epochs and recipe is chosen for it, by measuring on these pictures; what was
            chosen and why is printed and kept. A run that turns out slower is shortened, and says so; one that goes on
            with `resume` keeps its choice, and the time of what it goes on from is counted.
        exclude: a list of pictures to leave out, one path a line, as `CheckReport.write_exclusions` writes it.
        check: leave copies of validation and test pictures out of training; warn of photos in two classes, of copies
            and of classes with few pictures. It reads only files that share their size with another.
        resume: go on with the run in `out`: its model, weights, recipe and list are used again.
        keep_memory: on Linux, let glibc keep freed memory: faster steps, more resident memory, for the whole process.
        log: "tensorboard", "mlflow" or both with a comma between, besides the run's log.jsonl; one that fails is told
            of and left off. A run that goes on keeps what it began with where nothing is said; "" turns it off.
        keep_checkpoints: how many checkpoints stay in last/; a damaged one is passed over for the one before.
        checkpoint_seconds: the time between checkpoints within an epoch; each epoch ends with one in any case.
        explain: show in the report what spoke for the worst mistakes, where captum is installed.
        device: "cpu", "cuda", or "auto": the GPU where torch finds one. It is no part of the recipe: a run may go on
            elsewhere.
        progress: tell a person on stderr what happens.
        **overrides: values of the recipe (`epochs=5`, `lr=0.01`, `seed=1`, …).

    Started by `torchrun`, the processes divide each batch of the recipe and the pictures of the evaluation; the first
    one writes and prints, every one returns the result.

    Raises:
        UsageError: a wrong name or value, or `out` holds a run and `resume` is False.
        DataError: the data cannot be used.
        BundleError: the weights do not fit the network.
    """
    started = time.monotonic()
    _check_options(keep_checkpoints, checkpoint_seconds)
    run = Path(out)
    with join(device) as world:
        listener: Listener = Terminal() if progress and world.first else Silent()
        with _naming_the_run(run, world, listener):
            opening = open_run(run, resume, world, listener.say)
            before, stored = opening.facts, opening.recipe
            chosen = _budget_before(run, opening.resume, before, budget, world)
            variant = find(before.get("model", model or DEFAULT_MODEL)).name
            if opening.resume and model is not None and find(model).name != variant:
                raise UsageError(f"the run in {run} trains {variant}, not {model}")
            if stored is not None:
                check_nothing_else_is_asked(run, stored, recipe, overrides)
                check_same_weights(run, before.get("weights", "auto"), str(weights))
            seed, fraction = _split_values(recipe, overrides, stored)
            listed = kept_exclusions(run, before, exclude) if opening.resume else asked_exclusions(exclude)
            checked = kept_check(run, before, check) if opening.resume else check
            screened = prepare(data, fraction, seed, listed, checked)
            keeps_memory = keep_memory and keep_freed_memory()  # before the first tensor
            begins = before.get("weights", str(weights))
            if budget is not None and chosen is None:
                wish = Wish(model, recipe, begins, overrides)
                chosen, candidate = plan(budget, wish, screened.split, started, listener, explain, world)
                variant, begins = candidate.network, candidate.weights
                recipe, overrides = recipe or chosen.chosen["recipe"], overrides | dict(chosen.values)
            job = Job(Path(data), run, variant, screened, begins, listener, world)
            job.explain, job.before, job.keeps_memory = explain, before, keeps_memory
            if chosen:
                job.budget, job.began = chosen, started - (chosen.used if opening.resume else PYTHON_SECONDS)
            job.keep_checkpoints, job.checkpoint_seconds = keep_checkpoints, checkpoint_seconds
            job.log = before.get("log", "") if log is None else log
            return job.work(stored or recipe, {} if stored else overrides, opening.resume)


def _budget_before(run: Path, resume: bool, before: dict[str, Any], asked: str | None, world: World) -> Budget | None:
    """The budget of a run that goes on, None for one that begins; a wish that cannot be is refused."""
    if asked is not None:
        parse_duration(asked)
        if world.size > 1:
            raise UsageError(
                f"a budget is planned for one process, and torchrun has started {world.size}; leave --budget out, or "
                "start one"
            )
    return kept_budget(run, before, asked) if resume else None


def _check_options(keep_checkpoints: int, checkpoint_seconds: float) -> None:
    if keep_checkpoints < 1:
        raise UsageError(f"keep_checkpoints is {keep_checkpoints}, it must be at least 1")
    if checkpoint_seconds < 0:
        raise UsageError(f"checkpoint_seconds is {checkpoint_seconds:g}, it must be at least 0")


@contextmanager
def _naming_the_run(run: Path, world: World, listener: Listener) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:  # outside the steps, where no checkpoint is written for it
        listener.finish()
        how = f"the same command with --resume goes on ({run})" if (run / RECIPE).is_file() else "nothing was written"
        listener.say(f"stopped; {how}")
        raise
    except PeerLostError as error:
        raise TrainingError(
            f"one of the {world.size} processes was killed or lost, so the run in {run} has stopped; "
            "the same command with --resume goes on from its last checkpoint"
        ) from error


def _split_values(recipe: Any, overrides: dict[str, Any], stored: Recipe | None) -> tuple[int, float]:
    """The seed and the share of validation, which are needed before the rest of the recipe is known."""
    asked = {name: value for name, value in overrides.items() if value is not None}
    values = asdict(stored) if stored else given_values(recipe) | asked
    chosen = Recipe().with_values({name: value for name, value in values.items() if name in ("seed", "val_fraction")})
    return chosen.seed, chosen.val_fraction
