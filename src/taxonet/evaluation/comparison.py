"""`compare`: models on the same photos, with paired tests, speed and size, and the photos on which they disagree."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from taxonet.data import ClassIndex, Finding, Sample, read_data, sort_by_known
from taxonet.data.sources import WHOLE
from taxonet.data.trained_on import count_trained_on, warning
from taxonet.errors import DataError, UsageError
from taxonet.evaluation.metrics import Metrics, measure
from taxonet.evaluation.paired import Answers, PairedTest, compare_pairs
from taxonet.evaluation.speed import RUNS, Machine, Speed, Timing, describe_machine, measure_speed
from taxonet.inference import Classifier, load

Model = str | os.PathLike[str] | Classifier
Progress = Callable[[str, int, int], None]  # what is done, parts done, parts in all
TIMED = 16  # photos that are timed
LISTED = 8  # class names that an error sentence lists
SAME_SIZE = 0.01  # files that differ by less differ in their metadata

T = TypeVar("T")


@dataclass(frozen=True)
class Compared:
    """One model of a comparison: its figures on the common photos, its cost, and whether nothing beats it.

    `bytes` is the file's size; `params` and `macs` (multiply-adds for one photo) are None for what is no network.
    `best_for_speed` and `best_for_size`: no other model is at least as accurate and at least as fast (or small), and
    better in one of the two; what noise or metadata decides counts as equal.
    """

    name: str
    variant: str
    engine: str
    preprocessing: str
    metrics: Metrics
    bytes: int | None
    params: int | None
    macs: int | None
    speed: Speed | None
    best_for_speed: bool | None = None
    best_for_size: bool | None = None
    trained_on: int = 0  # of the photos, as far as the folder of the bundle's run tells


@dataclass(frozen=True)
class Disagreement:
    """A photo on which the models' answers differ: each model's class and its probability, in the models' order."""

    sample: Sample
    answers: tuple[tuple[str, float], ...]

    @property
    def right(self) -> tuple[bool, ...]:
        """Which models are right."""
        return tuple(label == self.sample.label for label, _ in self.answers)


@dataclass(frozen=True)
class Comparison:
    """Models on the same photos; `pairs` has every pair, `findings` what not every model could answer."""

    models: tuple[Compared, ...]
    pairs: tuple[PairedTest, ...]
    disagreements: tuple[Disagreement, ...]
    findings: tuple[Finding, ...]
    classes: tuple[str, ...]
    source: str
    split: str
    machine: Machine
    restricted: bool  # to the classes that all models know
    outside: int  # photos of other classes, left out for that

    @property
    def n(self) -> int:
        """The photos that were compared."""
        return self.models[0].metrics.n

    @property
    def sentences(self) -> list[str]:
        """The results in plain words, one a pair."""
        return [pair.sentence for pair in self.pairs]

    @property
    def warnings(self) -> list[str]:
        """What makes some model's figures flatter."""
        return [text for model in self.models if (text := warning(model.trained_on, self.n, model.name))]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        names = [model.name for model in self.models]
        return {
            "n": self.n,
            "data": self.source,
            "split": self.split,
            "classes": list(self.classes),
            "restricted_to_common_classes": self.restricted,
            "outside_common_classes": self.outside,
            "models": [_model_dict(model) for model in self.models],
            "pairs": [{**asdict(p), "significant": p.significant, "sentence": p.sentence} for p in self.pairs],
            "disagreements": [
                {
                    "path": str(d.sample.path),
                    "label": d.sample.label,
                    "answers": {n: {"label": a[0], "probability": a[1]} for n, a in zip(names, d.answers, strict=True)},
                }
                for d in self.disagreements
            ],
            "machine": asdict(self.machine),
            "errors": [{"path": finding.path, "error": finding.reason} for finding in self.findings],
        }


def _model_dict(model: Compared) -> dict[str, Any]:
    fields = asdict(model)
    metrics = fields.pop("metrics")
    chosen = ("top1", "top1_ci", "top5", "balanced_accuracy", "log_loss", "ece")
    return {**fields, **{key: metrics[key] for key in chosen}}


def compare(
    models: Sequence[Model],
    data: str | os.PathLike[str],
    *,
    split: str | None = None,
    common: bool = False,
    names: Sequence[str] | None = None,
    engine: str = "auto",
    runs: int = RUNS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Compare models on the same photos, classes matched by name.

    Args:
        models: two or more bundles, catalogue names or open classifiers.
        data: a folder of class folders or a CSV/Parquet table.
        split: "train", "val" or "test"; by default "test" if the data has it, else "val", else everything.
        common: where the models know different classes, compare on the photos of those that all know, with every
            model's answer chosen among these.
        names: what to call the models; by default their files' or runs' names.
        engine: what runs the models.
        runs: how often single photos are timed; 0 leaves the timing out.
        seed: of the bootstrap.
        progress: called with (what is done, parts done, parts in all).

    Raises:
        UsageError: fewer than two models, one of them twice, no such split, or different classes without `common`.
        DataError: there is no photo that all models can answer.
    """
    if len(models) < 2:
        raise UsageError(f"compare needs at least two models, not {len(models)}")
    check_runs(runs)
    machine = describe_machine()  # before our own work is its load
    called = _names(models, names)
    classifiers = [model if isinstance(model, Classifier) else load(model, engine) for model in models]
    classes, restricted = _common_classes(dict(zip(called, classifiers, strict=True)), common)
    found = read_data(data)
    chosen = split or next((name for name in ("test", "val") if name in found.splits), None)
    every = found.samples if chosen is None else found.split(chosen)
    known, findings, outside = _known(every, classes, classifiers)
    samples, tables, unread = _score(called, classifiers, classes, known, progress)
    speeds = _speeds(classifiers, samples, runs, progress)
    truth = [ClassIndex(classes)[sample.label] for sample in samples]
    rows = [
        replace(
            _compared(name, model, classifier, measure(table, truth, classes), speed),
            trained_on=0 if isinstance(model, Classifier) else count_trained_on(model, samples),
        )
        for name, model, classifier, table, speed in zip(called, models, classifiers, tables, speeds, strict=True)
    ]
    answers = [_answers(name, table, np.array(truth)) for name, table in zip(called, tables, strict=True)]
    return Comparison(
        models=_with_fronts(rows),
        pairs=tuple(compare_pairs(answers, seed)),
        disagreements=tuple(_disagreements(samples, tables, classes)),
        findings=(*found.findings, *findings, *unread),
        classes=classes,
        source=str(data),
        split=chosen or WHOLE,
        machine=machine,
        restricted=restricted,
        outside=outside,
    )


def check_runs(runs: int) -> None:
    """Refuse a number of timings that is none."""
    if runs < 0:
        raise UsageError(f"runs is {runs}, it must be at least 0")


def _names(models: Sequence[Model], given: Sequence[str] | None) -> list[str]:
    if given is not None:
        if len(given) != len(models) or len(set(given)) != len(given):
            raise UsageError(f"names has {len(given)} entries for {len(models)} models; each needs one of its own")
        return list(given)
    short = [_short_name(model) for model in models]
    full = [m.info.variant if isinstance(m, Classifier) else os.fspath(m) for m in models]
    called = [name if short.count(name) == 1 else whole for name, whole in zip(short, full, strict=True)]
    twice = next((name for name in called if called.count(name) > 1), None)
    if twice is None:
        return called
    if all(isinstance(m, Classifier) for m, name in zip(models, called, strict=True) if name == twice):
        raise UsageError(f"two classifiers are called {twice}; give `names`")
    raise UsageError(f"the model {twice} is given twice")


def _short_name(model: Model) -> str:
    """A run's folder for its bundle, a file's stem for another, the name for a catalogue entry."""
    if isinstance(model, Classifier):
        return model.info.variant
    path = Path(model)
    if path.suffix != ".safetensors":
        return os.fspath(model)
    return path.absolute().parent.name if path.stem == "model" else path.stem


def _common_classes(classifiers: Mapping[str, Classifier], common: bool) -> tuple[tuple[str, ...], bool]:
    """The classes to compare on, in the first model's order, and whether they are fewer than some model knows."""
    known = {name: set(classifier.classes) for name, classifier in classifiers.items()}
    shared = set.intersection(*known.values())
    first = next(iter(classifiers.values()))
    classes = tuple(label for label in first.classes if label in shared)
    if all(labels == shared for labels in known.values()):
        return classes, False
    if common and len(classes) >= 2:
        return classes, True
    if len(classes) < 2:
        all_of = "; ".join(f"{name} knows {_list(labels)}" for name, labels in known.items())
        raise UsageError(f"the models have {len(classes)} classes in common, a comparison needs two; {all_of}")
    more = "; ".join(f"{name} also {_list(labels - shared)}" for name, labels in known.items() if labels - shared)
    raise UsageError(
        f"the models know different classes: all know {_list(classes)}; {more}; "
        "--common compares them on the photos of the common ones, with answers among these"
    )


def _list(labels: Sequence[str] | set[str]) -> str:
    shown = sorted(labels)[:LISTED]
    return ", ".join(shown) + (f" … ({len(labels)} in all)" if len(labels) > LISTED else "")


def _known(
    samples: Sequence[Sample], classes: tuple[str, ...], classifiers: Sequence[Classifier]
) -> tuple[list[Sample], list[Finding], int]:
    """Photos of the compared classes, findings for those of classes that no model knows, and the number of others."""
    by_some = set().union(*(classifier.classes for classifier in classifiers))
    index = ClassIndex(classes)
    known, findings = sort_by_known((s for s in samples if s.label in index or s.label not in by_some), index)
    if not known:
        theirs = ", ".join(sorted({s.label for s in samples})[:5])
        raise DataError(f"no class of the data is known to the models (data: {theirs} …; models: {_list(classes)})")
    return known, findings, len(samples) - len(known) - len(findings)


def _score(
    names: Sequence[str],
    classifiers: Sequence[Classifier],
    classes: tuple[str, ...],
    samples: Sequence[Sample],
    progress: Progress | None,
) -> tuple[list[Sample], list[NDArray[np.float64]], list[Finding]]:
    """The photos that every model answered, each model's probabilities (n, classes) on them, and the other photos."""
    paths = [sample.path for sample in samples]
    tables = [np.zeros((len(samples), len(classes))) for _ in classifiers]
    reasons: dict[int, str] = {}
    for name, classifier, table in zip(names, classifiers, tables, strict=True):
        columns = [ClassIndex(classifier.classes)[label] for label in classes]
        complete = len(columns) == len(classifier.classes)
        for row, (_, scored) in enumerate(classifier.score_each(paths)):
            if scored.probabilities is None:
                reasons.setdefault(row, scored.error or "it cannot be read")
            else:
                among = scored.probabilities[columns].astype(np.float64)
                table[row] = among if complete else among / max(among.sum(), 1e-300)
            if progress:
                progress(f"photos, {name}", row + 1, len(paths))
    findings = [Finding(str(paths[row]), reasons[row]) for row in sorted(reasons)]
    kept = [row for row in range(len(samples)) if row not in reasons]
    if not kept:
        raise DataError(f"not one of the {len(samples)} pictures can be read, the first: {findings[0].reason}")
    return [samples[row] for row in kept], [table[kept] for table in tables], findings


def _speeds(
    classifiers: Sequence[Classifier], samples: Sequence[Sample], runs: int, progress: Progress | None
) -> Sequence[Speed | None]:
    if not runs:
        return [None] * len(classifiers)
    timed = [sample.path for sample in samples[:: max(1, len(samples) // TIMED)]][:TIMED]
    rounds = (lambda done, total: progress("rounds of timing", done, total)) if progress else None
    return measure_speed(classifiers, timed, runs, rounds)


def _answers(name: str, table: NDArray[np.float64], truth: NDArray[np.int64]) -> Answers:
    likelihood = np.clip(table[np.arange(len(truth)), truth], 1e-12, 1)
    return Answers(name, table.argmax(axis=1) == truth, -np.log(likelihood))


def _compared(name: str, model: Model, classifier: Classifier, metrics: Metrics, speed: Speed | None) -> Compared:
    params, macs = _complexity(classifier)
    return Compared(
        name=name,
        variant=classifier.info.variant,
        engine=classifier.engine.name,
        preprocessing=str(classifier.preprocessing),
        metrics=metrics,
        bytes=_file_size(model),
        params=params,
        macs=macs,
        speed=speed,
    )


def _complexity(classifier: Classifier) -> tuple[int | None, int | None]:
    """Parameters and multiply-adds of the network at the size that it sees; counted without touching memory."""
    import torch

    from taxonet.networks.complexity import count
    from taxonet.networks.registry import create_model

    try:
        with torch.device("meta"):
            network = create_model(classifier.info.variant, **classifier.info.create_options)
    except UsageError:  # no network of ours
        return None, None
    cost = count(network, *classifier.preprocessing.output_size, classifier.preprocessing.channels)
    return cost.params, cost.macs


def _file_size(model: Model) -> int | None:
    from taxonet.weights.finding import file_of

    file = None if isinstance(model, Classifier) else file_of(model)
    return file.stat().st_size if file and file.is_file() else None


def pareto_front(costs: Sequence[T], accuracies: Sequence[float], less: Callable[[T, T], bool]) -> list[bool]:
    """Which points no other beats: at most its cost and at least its accuracy, and better in one of them.

    `less` says when one cost is below another; costs of which neither is below the other are equal.
    """
    points = list(zip(costs, accuracies, strict=True))

    def beaten(cost: T, accuracy: float) -> bool:
        return any((a >= accuracy and less(c, cost)) or (a > accuracy and not less(cost, c)) for c, a in points)

    return [not beaten(cost, accuracy) for cost, accuracy in points]


def _with_fronts(models: Sequence[Compared]) -> tuple[Compared, ...]:
    accuracies = [model.metrics.top1 for model in models]
    speeds = [m.speed.single for m in models if m.speed]
    sizes = [m.bytes if m.bytes is not None else m.params for m in models]
    known = [size for size in sizes if size is not None]
    fast = pareto_front(speeds, accuracies, _faster) if len(speeds) == len(models) else [None] * len(models)
    comparable = len(known) == len(models) and len({m.bytes is None for m in models}) == 1
    small = pareto_front(known, accuracies, _smaller) if comparable else [None] * len(models)
    return tuple(replace(m, best_for_speed=f, best_for_size=s) for m, f, s in zip(models, fast, small, strict=True))


def _faster(one: Timing, other: Timing) -> bool:
    """Whether neither median lies within the other's quartiles: less than that is the machine's noise."""
    return one.median < other.low and one.high < other.median


def _smaller(one: int, other: int) -> bool:
    return one < (1 - SAME_SIZE) * other


def _disagreements(
    samples: Sequence[Sample], tables: Sequence[NDArray[np.float64]], classes: Sequence[str]
) -> list[Disagreement]:
    """Photos with different answers: first those that some models get right, the surest wrong answer before others."""
    found = []
    for row, sample in enumerate(samples):
        answers = tuple((classes[int(table[row].argmax())], float(table[row].max())) for table in tables)
        if len({label for label, _ in answers}) > 1:
            found.append(Disagreement(sample, answers))

    def order(d: Disagreement) -> tuple[bool, float]:
        wrong = [p for (_, p), right in zip(d.answers, d.right, strict=True) if not right]
        return not any(d.right), -max(wrong)

    return sorted(found, key=order)
