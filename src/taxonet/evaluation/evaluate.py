"""Evaluate a classifier on labelled pictures."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.data import ClassIndex, Finding, Sample, read_data, sort_by_known
from taxonet.data.sources import WHOLE
from taxonet.errors import DataError
from taxonet.evaluation.metrics import Metrics, measure
from taxonet.evaluation.spread import Answer, answers
from taxonet.inference import Classifier, load
from taxonet.inference.classifier import BATCH
from taxonet.processes import World, join

Progress = Callable[[int, int], None]  # pictures done, pictures in all
ALONE = World()


@dataclass(frozen=True)
class Outcome:
    """One sample that was scored: its true class, the answer, and the probability that the answer got."""

    sample: Sample
    answer: str
    probability: float


@dataclass(frozen=True)
class Evaluation:
    """Metrics on what could be scored, and a finding for everything that could not."""

    metrics: Metrics
    findings: tuple[Finding, ...]
    outcomes: tuple[Outcome, ...]
    split: str = WHOLE

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: n, top1, top5, top1_ci, ece, per_class, …, and `errors` with path and reason."""
        fields = asdict(self.metrics)
        fields["errors"] = [{"path": finding.path, "error": finding.reason} for finding in self.findings]
        return {"split": self.split, **fields}


def evaluate(
    model: str | os.PathLike[str] | Classifier,
    data: str | os.PathLike[str],
    *,
    split: str | None = None,
    engine: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on labelled pictures; labels are matched by name.

    Args:
        model: a bundle's path, a catalogue name, or an open classifier.
        data: a folder of class folders or a CSV/Parquet table.
        split: "train", "val" or "test"; by default "test" if the data has it, else "val", else everything.
        engine: what runs the model.
        progress: called with (pictures done, pictures in all).

    Started by `torchrun`, the processes share the pictures; each gets the whole evaluation, whose figures are the same
    bits as those of one process at the same number of threads.

    Raises:
        DataError: there is no data, or not one of its classes is known to the model.
        UsageError: the data has no such split.
    """
    with join() as world:
        classifier = model if isinstance(model, Classifier) else load(model, engine)
        found = read_data(data)
        chosen = split or next((name for name in ("test", "val") if name in found.splits), None)
        samples = found.samples if chosen is None else found.split(chosen)
        result = evaluate_samples(classifier, samples, progress, world)
    return Evaluation(result.metrics, (*found.findings, *result.findings), result.outcomes, chosen or WHOLE)


def evaluate_samples(
    classifier: Classifier, samples: Sequence[Sample], progress: Progress | None = None, world: World = ALONE
) -> Evaluation:
    """Measure an open classifier on samples; those of unknown classes and broken ones come back as findings.

    The processes of `world` share the work; all of them must call this, with the same samples.
    """
    index = ClassIndex(classifier.classes)
    known, findings = sort_by_known(samples, index)
    if not known:
        theirs = ", ".join(sorted({s.label for s in samples})[:5])
        ours = ", ".join(classifier.classes[:5])
        raise DataError(f"no class of the data is known to the model (data: {theirs} …; model: {ours} …)")
    rows: list[NDArray[np.float32]] = []
    scored: list[Sample] = []
    unreadable = len(findings)

    def score(part: Sequence[Sample]) -> Iterator[Answer]:
        for _, found in classifier.score_each([sample.path for sample in part], BATCH):
            yield (found.error or "it cannot be read") if found.probabilities is None else found.probabilities

    for sample, answer in zip(known, answers(known, score, BATCH, world, progress), strict=True):
        if isinstance(answer, str):
            findings.append(Finding(str(sample.path), answer))
        else:
            rows.append(answer)
            scored.append(sample)
    if not scored:
        raise DataError(f"not one of the {len(known)} pictures can be read, the first: {findings[unreadable].reason}")
    return _summary(classifier, np.stack(rows), scored, index, findings)


def _summary(
    classifier: Classifier,
    probabilities: NDArray[np.float32],
    scored: list[Sample],
    index: ClassIndex,
    findings: list[Finding],
) -> Evaluation:
    targets = [index[sample.label] for sample in scored]
    answers = probabilities.argmax(axis=1)
    outcomes = tuple(
        Outcome(sample, classifier.classes[answer], float(row[answer]))
        for sample, answer, row in zip(scored, answers, probabilities, strict=True)
    )
    return Evaluation(measure(probabilities, targets, classifier.classes), tuple(findings), outcomes)
