"""Evaluate a classifier on labelled pictures."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.console import Listener, Silent
from taxonet.data import ClassIndex, Finding, Sample, read_data, sort_by_known
from taxonet.data.sources import WHOLE
from taxonet.data.trained_on import count_trained_on, warning
from taxonet.errors import DataError
from taxonet.evaluation.metrics import Metrics, intervals, measure, picture_losses
from taxonet.evaluation.reliability import expected_calibration_error
from taxonet.evaluation.robustness import Robustness, check_robustness
from taxonet.evaluation.selection import Selected, area_under_risk, select
from taxonet.evaluation.spread import Answer, answers
from taxonet.evaluation.views import Views
from taxonet.inference import Classifier, load
from taxonet.inference.classifier import BATCH, softmax
from taxonet.intervals import Interval, bootstrap
from taxonet.processes import World, join

Progress = Callable[[int, int], None]  # pictures done, pictures in all
ALONE = World()


@dataclass(frozen=True)
class Outcome:
    """One sample that was scored: its true class, the answer, and the probability that the answer got."""

    sample: Sample
    answer: str
    probability: float


@dataclass(frozen=True, eq=False)
class Scores:
    """What the figures come from, a row a scored sample.

    `probabilities` (n, classes) are calibrated (and averaged over views where there are several), `logits` (n, classes)
    those of the plain view before the bundle's `temperature`, `targets` (n,) the true classes.
    """

    probabilities: NDArray[np.floating]
    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    temperature: float

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of each answer, (n,)."""
        confidence: NDArray[np.float64] = self.probabilities.max(axis=1).astype(np.float64)
        return confidence

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is right, (n,)."""
        right: NDArray[np.bool_] = self.probabilities.argmax(axis=1) == self.targets
        return right


@dataclass(frozen=True)
class Augmented:
    """What test-time augmentation gave and cost: the plain figures of the same pictures in the same pass.

    `top1_change_ci` is a 95 % bootstrap interval over pictures of the gain, None where no answer changed.
    """

    views: str
    passes: int  # of the network, a picture
    plain_top1: float
    plain_log_loss: float
    plain_ece: float
    top1_change: float
    top1_change_ci: Interval | None
    seconds: float
    rule: str = "mean of the views' calibrated probabilities"


@dataclass(frozen=True)
class Evaluation:
    """Metrics on what could be scored, and a finding for everything that could not."""

    metrics: Metrics
    findings: tuple[Finding, ...]
    outcomes: tuple[Outcome, ...]
    split: str = WHOLE
    scores: Scores | None = field(default=None, compare=False, repr=False)
    threshold: float | None = None
    augmented: Augmented | None = None
    robustness: Robustness | None = None
    seconds: float = field(default=0.0, compare=False)
    trained_on: int = 0  # of the pictures, as far as the folder of the bundle's run tells

    @property
    def warning(self) -> str:
        """What makes the figures flatter, empty for nothing."""
        return warning(self.trained_on, self.metrics.n)

    @property
    def selected(self) -> Selected | None:
        """Coverage and precision at the bundle's threshold, None where it has none."""
        if self.threshold is None or self.scores is None:
            return None
        return select(self.scores.confidence, self.scores.right, self.threshold)

    @cached_property
    def intervals(self) -> dict[str, Interval | None]:
        """95 % bootstrap intervals of the figures that are not plain shares."""
        return intervals(self.scores.probabilities, self.scores.targets) if self.scores else {}

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: n, top1, top5, top1_ci, ece, per_class, …, and `errors` with path and reason."""
        return {
            "split": self.split,
            **asdict(self.metrics),
            "intervals": self.intervals,
            "temperature": self.scores.temperature if self.scores else None,
            "aurc": area_under_risk(self.scores.confidence, self.scores.right) if self.scores else None,
            "selected": self.selected.as_dict() if self.selected else None,
            "tta": vars(self.augmented) if self.augmented else None,
            "robustness": self.robustness.as_dict() if self.robustness else None,
            "trained_on": self.trained_on,
            "errors": [{"path": finding.path, "error": finding.reason} for finding in self.findings],
        }


def evaluate(
    model: str | os.PathLike[str] | Classifier,
    data: str | os.PathLike[str],
    *,
    split: str | None = None,
    engine: str = "auto",
    tta: str | None = None,
    robustness: bool = False,
    robustness_pictures: int | None = None,
    html: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    listener: Listener | None = None,
) -> Evaluation:
    """Measure a model on labelled pictures; labels are matched by name.

    Args:
        model: a bundle's path, a catalogue name, or an open classifier.
        data: a folder of class folders or a CSV/Parquet table.
        split: "train", "val" or "test"; by default "test" if the data has it, else "val", else everything.
        engine: what runs the model.
        tta: test-time augmentation: "flip", "crops", "scales", or several with commas.
        robustness: also corrupt the pictures and measure again, for about a minute.
        robustness_pictures: how many pictures that takes; by default what fits a minute.
        html: where to write a report.
        progress: called with (pictures done, pictures in all).
        listener: is told of the check of robustness.

    Started by `torchrun`, the processes share the pictures; each gets the whole evaluation, whose figures are the same
    bits as those of one process at the same number of threads.

    Raises:
        DataError: there is no data, or not one of its classes is known to the model.
        UsageError: the data has no such split, or a wrong value.
    """
    with join() as world:
        classifier = model if isinstance(model, Classifier) else _opened(model, engine, world)
        views = Views.parse(tta, classifier.preprocessing) if tta else None
        chosen, samples, findings = read_split(data, split)
        result = evaluate_samples(classifier, samples, progress, views, world)
    seen = 0 if isinstance(model, Classifier) else count_trained_on(model, (o.sample for o in result.outcomes))
    result = replace(result, findings=(*findings, *result.findings), split=chosen, trained_on=seen)
    if not world.first:  # what follows is timed or written, by one process
        return result
    if robustness or robustness_pictures is not None:
        scored = [outcome.sample for outcome in result.outcomes]
        check = check_robustness(classifier, scored, pictures=robustness_pictures, listener=listener or Silent())
        result = replace(result, robustness=check)
    if html is not None:
        from taxonet.evaluation.report import EvaluationReport, write_evaluation

        write_evaluation(Path(html), EvaluationReport(classifier, str(model_name(model)), str(data), result))
    return result


def _opened(model: str | os.PathLike[str], engine: str, world: World) -> Classifier:
    """The model with the same engine in each process: the first one chooses."""
    if world.size == 1:
        return load(model, engine)

    def chosen() -> bytes:
        return load(model, engine).engine.name.encode()

    return load(model, world.from_first(chosen).decode())


def model_name(model: str | os.PathLike[str] | Classifier) -> str:
    """How a report calls a model: its path or name, for an open classifier its variant."""
    return model.info.variant if isinstance(model, Classifier) else os.fspath(model)


def read_split(
    data: str | os.PathLike[str], split: str | None, prefer: Sequence[str] = ("test", "val")
) -> tuple[str, tuple[Sample, ...], tuple[Finding, ...]]:
    """The name and samples of the split that is asked for, else of the first of `prefer` that is there, else of all."""
    found = read_data(data)
    chosen = split or next((name for name in prefer if name in found.splits), None)
    samples = found.samples if chosen is None else found.split(chosen)
    return chosen or WHOLE, samples, found.findings


def evaluate_samples(
    classifier: Classifier,
    samples: Sequence[Sample],
    progress: Progress | None = None,
    views: Views | None = None,
    world: World = ALONE,
) -> Evaluation:
    """Measure an open classifier on samples; those of unknown classes and broken ones come back as findings.

    The processes of `world` share the work; all of them must call this, with the same samples.
    """
    index, started = ClassIndex(classifier.classes), time.monotonic()
    known, findings = sort_by_known(samples, index)
    if not known:
        theirs = ", ".join(sorted({s.label for s in samples})[:5])
        ours = ", ".join(classifier.classes[:5])
        raise DataError(f"no class of the data is known to the model (data: {theirs} …; model: {ours} …)")
    plain, mean = [], []  # logits of the plain view, probabilities over all views
    scored: list[Sample] = []
    unreadable = len(findings)
    rows = len(views) if views else 1
    found = answers(known, lambda part: _logits(classifier, part, views), -(-BATCH // rows), world, progress)
    for sample, logits in zip(known, found, strict=True):
        if isinstance(logits, str):
            findings.append(Finding(str(sample.path), logits))
        else:
            plain.append(logits[0])
            mean.append(averaged(logits, classifier.info.temperature))
            scored.append(sample)
    if not scored:
        raise DataError(f"not one of the {len(known)} pictures can be read, the first: {findings[unreadable].reason}")
    targets = np.array([index[sample.label] for sample in scored])
    scores = Scores(np.stack(mean), np.stack(plain), targets, classifier.info.temperature)
    result = summary(classifier, scores, scored, findings)
    seconds = time.monotonic() - started
    return replace(result, augmented=_augmented(scores, views, seconds) if views else None, seconds=seconds)


def _logits(classifier: Classifier, samples: Sequence[Sample], views: Views | None) -> Iterator[Answer]:
    """The logits (views, classes) of every sample's views, or why it cannot be read."""

    def read(sample: Sample) -> NDArray[np.uint8]:
        if views is not None:
            return views.pixels(sample.path, classifier.limits)
        return classifier.preprocessing.pixels(sample.path, classifier.limits)[None]

    return (found for _, found in classifier.logits_each(samples, read, rows=len(views) if views else 1))


def summary(
    classifier: Classifier, scores: Scores, scored: Sequence[Sample], findings: Sequence[Finding]
) -> Evaluation:
    """The figures of the scores of samples."""
    answers = scores.probabilities.argmax(axis=1)
    outcomes = tuple(
        Outcome(sample, classifier.classes[answer], float(row[answer]))
        for sample, answer, row in zip(scored, answers, scores.probabilities, strict=True)
    )
    metrics = measure(scores.probabilities, scores.targets.tolist(), classifier.classes)
    return Evaluation(metrics, tuple(findings), outcomes, scores=scores, threshold=classifier.info.threshold)


def averaged(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """One picture's probabilities (classes,) of the logits (views, classes) of its views: their mean, in float64."""
    each = softmax(logits, temperature)
    mean: NDArray[np.float32] = each.mean(axis=0, dtype=np.float64).astype(np.float32)
    return each[0] if len(each) == 1 else mean


def _augmented(scores: Scores, views: Views, seconds: float) -> Augmented:
    plain = softmax(scores.logits, scores.temperature)
    plain_right = plain.argmax(axis=1) == scores.targets
    change = scores.right.astype(float) - plain_right.astype(float)
    found = bootstrap(lambda places: {"change": float(change[places].mean())}, len(change), ("change",))
    return Augmented(
        views=views.name,
        passes=len(views),
        plain_top1=float(plain_right.mean()),
        plain_log_loss=float(picture_losses(plain.astype(np.float64), scores.targets)[0].mean()),
        plain_ece=expected_calibration_error(plain.max(axis=1).astype(np.float64), plain_right),
        top1_change=float(change.mean()),
        top1_change_ci=found["change"],
        seconds=seconds,
    )
