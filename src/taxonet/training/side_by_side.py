"""`train_and_compare`: networks trained on the same photos under one budget, then compared on the held-out ones."""

import csv
import json
import os
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from taxonet.console import Listener, Silent, Terminal, follow_parts
from taxonet.data import Finding
from taxonet.errors import TrainingError, UsageError
from taxonet.evaluation.comparison import Comparison, check_runs, compare
from taxonet.evaluation.speed import RUNS
from taxonet.files import check_folder, make_folder, write_atomically
from taxonet.inference.engines import check_engine
from taxonet.inference.engines.libraries import check_onnx
from taxonet.networks.registry import find
from taxonet.processes import join
from taxonet.training.duration import parse_duration
from taxonet.training.opening import RECIPE, RUN
from taxonet.training.recipe import Recipe, read_recipe
from taxonet.training.results import BUNDLE, REPORT
from taxonet.training.train import train
from taxonet.weights.finding import here

PLAN = "compare.json"
WEIGHTS = ("auto", "own", "none")
TOLD = ("name", "epochs", "image_size", "batch_size", "optimizer", "lr", "norm_statistics", "augmentation")


@dataclass(frozen=True)
class TrainedComparison:
    """The runs by network, and their comparison; None where the user stopped before all were trained."""

    out: Path
    runs: dict[str, Path]
    comparison: Comparison | None
    findings: tuple[Finding, ...]  # of the training: what was left out, and networks whose training failed
    notes: tuple[str, ...] = ()  # how the runs differ

    @property
    def interrupted(self) -> bool:
        """Whether the user stopped it."""
        return self.comparison is None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "out": str(self.out),
            "runs": {name: str(run) for name, run in self.runs.items()},
            "interrupted": self.interrupted,
            "notes": list(self.notes),
            "excluded": [{"path": f.path, "error": f.reason} for f in self.findings],
            "comparison": self.comparison.as_dict() if self.comparison else None,
        }


def train_and_compare(
    data: str | os.PathLike[str],
    models: Sequence[str],
    *,
    out: str | os.PathLike[str],
    recipe: str | os.PathLike[str] | None = None,
    weights: str = "auto",
    budget: str | None = None,
    resume: bool = False,
    engine: str = "auto",
    runs: int = RUNS,
    device: str = "auto",
    progress: bool = False,
    **overrides: Any,
) -> TrainedComparison:
    """Train networks one after the other on the same split with the same recipe and seed, then compare them.

    Args:
        data: a folder of class folders, with or without train/ and val/ above them, or a CSV/Parquet table.
        models: two or more networks.
        out: the folder for one run's folder a network, `comparison.html` and `comparison.json`.
        recipe: as for `train`; by default finetune where every network has weights to start from, else scratch.
        weights: "auto" (the catalogue's where every network has some, else all start fresh), "own" (each the
            catalogue's where it has some: what is best to use, not which network is better), or "none".
        budget: "10m": so much time for the training of each network, as for `train`; picture size, epochs and recipe
            are then chosen for each by itself, as far as they are not given.
        resume: go on with what stands in `out`: finished runs are kept, a stopped one goes on.
        engine: what runs the networks in the comparison.
        runs: how often single photos are timed, 0 for not at all.
        device: what trains the networks, as for `train`.
        progress: tell a person on stderr what happens.
        **overrides: values of the recipe for all of them (`epochs=5`, `seed=1`, …).

    Raises:
        UsageError: a wrong name or value, or `out` holds something and `resume` is False.
        DataError: the data cannot be used.
        TrainingError: fewer than two networks could be trained.
    """
    check_engine(engine)
    if engine == "onnxruntime":
        check_onnx()
    check_runs(runs)
    listener: Listener = Terminal() if progress else Silent()
    names = _checked_names(models)
    if weights not in WEIGHTS:
        raise UsageError(f"weights is '{weights}', for several networks it must be one of {', '.join(WEIGHTS)}")
    with join(device):  # one that is not there is refused before any work, also where all runs are finished
        pass
    given = {"weights"} if weights != "auto" else set()
    given |= {name for name, value in (("recipe", recipe), ("budget", budget)) if value is not None}
    folder, notes = Path(out), []
    if weights == "auto" and recipe != "finetune":
        fresh = [name for name in names if here(name) is None]
        weights = "none" if fresh else "auto"
        if fresh and len(fresh) < len(names):
            notes.append(
                f"all start from fresh weights, as there are none of {', '.join(fresh)} to start from "
                "(--weights own lets each start from what it has)"
            )
    asked = {key: value for key, value in overrides.items() if value is not None}
    Recipe().with_values(asked)  # a wrong value is refused before the first of them is trained
    if budget is not None:
        parse_duration(budget)
    wishes = {"recipe": None if recipe is None else str(recipe), "weights": weights, "budget": budget, "values": asked}
    plan = _settled(folder, {"data": str(Path(data).absolute()), "models": names} | wishes, resume, given)
    recipe, weights, budget, asked = (plan[name] for name in ("recipe", "weights", "budget", "values"))
    for note in notes:
        listener.say(note)
    job = _SideBySide(data, names, folder, listener, notes)
    job.budget, job.engine, job.timing_runs, job.device = budget, engine, runs, device
    return job.work(recipe, weights, asked, progress)


def _checked_names(models: Sequence[str]) -> list[str]:
    names = [find(name.strip()).name for name in models]
    if len(names) < 2:
        raise UsageError(f"compare needs at least two networks, not {len(names)}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"the network {twice} is given twice")
    return names


def _settled(folder: Path, plan: dict[str, Any], resume: bool, given: AbstractSet[str]) -> dict[str, Any]:
    """Write down what is asked; a resumed comparison keeps its own, and what is `given` again must be the same."""
    plan = json.loads(json.dumps(plan, default=str))
    if os.path.isfile(folder):  # noqa: PTH113 - false, not an error, where nobody may look
        raise UsageError(f"{folder} is a file, --out must be a folder")
    check_folder(folder)
    if not resume:
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(
                f"the folder {folder} is not empty; add --resume to go on with it, or choose another --out"
            )
        make_folder(folder)
        write_atomically(folder / PLAN, json.dumps(plan, indent=2).encode())
        return plan
    try:
        stored: dict[str, Any] = json.loads((folder / PLAN).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} holds no comparison to resume, there is no {PLAN} in it") from error
    asked = {key: plan[key] for key in ("data", "models", *sorted(given))} | plan["values"]
    kept = {key: value for key, value in stored.items() if key != "values"} | stored.get("values", {})
    for key, value in asked.items():
        if kept.get(key) != value:
            has = "nothing of its own" if kept.get(key) is None else kept[key]
            raise UsageError(f"the comparison in {folder} has {key} {has}, not {value}; it keeps its own")
    return plan | stored


class _SideBySide:
    """One call of `train_and_compare` after its wishes were checked."""

    def __init__(
        self, data: str | os.PathLike[str], names: list[str], folder: Path, listener: Listener, notes: list[str]
    ) -> None:
        self.data, self.names, self.folder, self.listener, self.notes = data, names, folder, listener, notes
        self.runs: dict[str, Path] = {}
        self.findings: list[Finding] = []
        self.budget: str | None = None
        self.engine, self.timing_runs, self.device = "auto", RUNS, "auto"

    def work(self, recipe: Any, weights: str, asked: dict[str, Any], progress: bool) -> TrainedComparison:
        """Train what is not trained yet, then compare."""
        for number, name in enumerate(self.names, start=1):
            self.listener.say(f"\nnetwork {number} of {len(self.names)}: {name}")
            if not self._train(name, recipe, weights, asked, progress):
                return self._result(None)
        if len(self.runs) < 2:
            raise TrainingError(
                f"fewer than two of {', '.join(self.names)} could be trained: {self.findings[-1].reason}"
            )
        self._check_same_split()
        self.notes += self._differences()
        first = next(iter(self.runs.values()))
        comparison = compare(
            [run / BUNDLE for run in self.runs.values()],
            first / "val.csv",
            names=list(self.runs),
            engine=self.engine,
            runs=self.timing_runs,
            progress=follow_parts(self.listener),
        )
        self.listener.finish()
        return self._result(replace(comparison, source=str(self.data), split="val"))

    def _train(self, name: str, recipe: Any, weights: str, asked: dict[str, Any], progress: bool) -> bool:
        """Train one network, or take its finished run; False where the user stopped."""
        run = self.folder / name
        if (run / BUNDLE).is_file() and (run / REPORT).is_file():
            self.listener.say(f"finished before: {run}")
            self.runs[name] = run
            return True
        goes_on = (run / RECIPE).is_file()
        if not goes_on:
            for leftover in ("train.csv", "val.csv", "test.csv", RUN):  # of a run that was killed as it began
                (run / leftover).unlink(missing_ok=True)
        start = "none" if weights == "none" else "auto"
        wishes = {} if goes_on else {"recipe": recipe, "weights": start, "model": name, "budget": self.budget, **asked}
        try:
            result = train(self.data, out=run, resume=goes_on, device=self.device, progress=progress, **wishes)
        except TrainingError as error:
            self.findings.append(Finding(name, f"its training failed: {error}"))
            self.listener.say(f"{name} is left out: {error}")
            return True
        self.findings += [finding for finding in result.findings if finding not in self.findings]
        if not result.interrupted:
            self.runs[name] = run
        return not result.interrupted

    def _check_same_split(self) -> None:
        seen = {name: _rows(run / "val.csv") for name, run in self.runs.items()}
        first, rows = next(iter(seen.items()))
        for name, others in seen.items():
            if others != rows:
                raise UsageError(
                    f"{first} and {name} were validated on different photos: the data changed between their runs"
                )

    def _differences(self) -> list[str]:
        """What the runs do not share: sizes and the like that belong to the network."""
        recipes = {name: read_recipe(run / RECIPE) for name, run in self.runs.items()}
        counts = json.loads((next(iter(self.runs.values())) / RUN).read_text("utf-8"))["counts"]
        first = next(iter(recipes.values()))
        how = f"recipe {first.name}, {first.epochs} epochs"
        if self.budget:
            how = f"each in {self.budget} on this machine"
        lines = [
            f"trained on the same {counts['train']} photos, compared on the same {counts['val']} held-out ones; "
            f"{how}, seed {first.seed}"
        ]
        for key in TOLD:
            values = {name: getattr(recipe, key) for name, recipe in recipes.items()}
            if len(set(values.values())) > 1:
                lines.append(f"{key}: " + "; ".join(f"{name} {value}" for name, value in values.items()))
        return lines

    def _result(self, comparison: Comparison | None) -> TrainedComparison:
        return TrainedComparison(self.folder, self.runs, comparison, tuple(self.findings), tuple(self.notes))


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return sorted(csv.reader(file))
