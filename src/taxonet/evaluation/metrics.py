"""Metrics of a classifier from probabilities and true classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CALIBRATION_BINS = 15  # Guo et al. 2017 (arXiv 1706.04599), §5


@dataclass(frozen=True)
class ClassScore:
    """One class: its number of samples, how many were found (recall), how many answers were right (precision), F1.

    A figure is None where it is not defined: recall without samples, precision without answers.
    """

    label: str
    n: int
    recall: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class Metrics:
    """Figures over `n` samples; `top1_ci` is Wilson's 95 % interval, `ece` the expected calibration error."""

    n: int
    top1: float
    top5: float
    top1_ci: tuple[float, float]
    balanced_accuracy: float
    log_loss: float
    ece: float
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]  # row: true class, column: answer


def measure(probabilities: NDArray[np.floating], targets: Sequence[int], classes: Sequence[str]) -> Metrics:
    """Metrics of probabilities (n, classes) against the true classes (n,), n ≥ 1."""
    from scipy.stats import binomtest
    from sklearn.metrics import confusion_matrix

    truth = np.asarray(targets)
    probabilities = np.asarray(probabilities, np.float64)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    answers = order[:, 0]
    right = answers == truth
    interval = binomtest(int(right.sum()), len(truth)).proportion_ci(0.95, method="wilson")
    confusion = confusion_matrix(truth, answers, labels=np.arange(len(classes)))
    per_class = _per_class(confusion, classes)
    recalls = [score.recall for score in per_class if score.recall is not None]
    likelihood = np.clip(probabilities[np.arange(len(truth)), truth], 1e-12, 1.0)
    return Metrics(
        n=len(truth),
        top1=float(right.mean()),
        top5=float((order[:, :5] == truth[:, None]).any(axis=1).mean()),
        top1_ci=(float(interval.low), float(interval.high)),
        balanced_accuracy=float(np.mean(recalls)),
        log_loss=float(-np.log(likelihood).mean()),
        ece=expected_calibration_error(probabilities.max(axis=1), right),
        per_class=per_class,
        confusion=tuple(tuple(int(v) for v in row) for row in confusion),
    )


def _per_class(confusion: NDArray[np.int64], classes: Sequence[str]) -> tuple[ClassScore, ...]:
    scores = []
    for index, label in enumerate(classes):
        hits, samples, answers = (
            int(v) for v in (confusion[index, index], confusion[index].sum(), confusion[:, index].sum())
        )
        recall = hits / samples if samples else None
        precision = hits / answers if answers else None
        f1 = 2 * hits / (samples + answers) if samples + answers else None
        scores.append(ClassScore(label, samples, recall, precision, f1))
    return tuple(scores)


def expected_calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Mean distance of confidence and accuracy over 15 bins of equal width, weighted by the bins' samples."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    error = 0.0
    for index in np.unique(bins):
        inside = bins == index
        error += inside.mean() * abs(float(right[inside].mean()) - float(confidence[inside].mean()))
    return float(error)
