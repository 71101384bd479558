"""Evaluate a classifier on labelled pictures."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.data import ClassIndex, Finding, Sample, read_data, sort_by_known
from taxonet.data.sources import WHOLE
from taxonet.errors import DataError
from taxonet.evaluation.metrics import Metrics, measure
from taxonet.inference import Classifier, load

Progress = Callable[[int, int], None]  # pictures done, pictures in all


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

    Raises:
        DataError: there is no data, or not one of its classes is known to the model.
        UsageError: the data has no such split.
    """
    classifier = model if isinstance(model, Classifier) else load(model, engine)
    found = read_data(data)
    chosen = split or next((name for name in ("test", "val") if name in found.splits), None)
    samples = found.samples if chosen is None else found.split(chosen)
    result = evaluate_samples(classifier, samples, progress)
    return Evaluation(result.metrics, (*found.findings, *result.findings), result.outcomes, chosen or WHOLE)


def evaluate_samples(classifier: Classifier, samples: Sequence[Sample], progress: Progress | None = None) -> Evaluation:
    """Measure an open classifier on samples; those of unknown classes and broken ones come back as findings."""
    index = ClassIndex(classifier.classes)
    known, findings = sort_by_known(samples, index)
    if not known:
        theirs = ", ".join(sorted({s.label for s in samples})[:5])
        ours = ", ".join(classifier.classes[:5])
        raise DataError(f"no class of the data is known to the model (data: {theirs} …; model: {ours} …)")
    rows: list[NDArray[np.float32]] = []
    scored: list[Sample] = []
    unreadable = len(findings)
    paths = [sample.path for sample in known]
    for done, (sample, (_, score)) in enumerate(zip(known, classifier.score_each(paths), strict=True), start=1):
        if score.probabilities is None:
            findings.append(Finding(str(sample.path), score.error or "it cannot be read"))
        else:
            rows.append(score.probabilities)
            scored.append(sample)
        if progress:
            progress(done, len(known))
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
