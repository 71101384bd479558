"""Metrics of a classifier from probabilities and true classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxonet.evaluation.reliability import adaptive_calibration_error, expected_calibration_error
from taxonet.intervals import Interval, bootstrap, wilson

LEAST = 1e-12  # probability of the true class in the log-loss: certainty that is wrong costs 27.6, not infinity
BOOTSTRAPPED = ("balanced_accuracy", "macro_precision", "macro_f1", "weighted_f1", "log_loss", "brier")


@dataclass(frozen=True)
class ClassScore:
    """One class: its number of samples, how many were found (recall), how many answers were right (precision), F1.

    A figure is None where it is not defined: recall without samples, precision without answers. The intervals are
    Wilson's at 95 %.
    """

    label: str
    n: int
    recall: float | None
    precision: float | None
    f1: float | None
    recall_ci: Interval | None = None
    precision_ci: Interval | None = None


@dataclass(frozen=True)
class Metrics:
    """Figures over `n` samples; intervals `…_ci` are Wilson's at 95 %.

    - `balanced_accuracy`: mean recall of the classes that have samples, also known as macro accuracy.
    - `macro_precision`, `macro_f1`: means over the classes that have samples or answers, an undefined figure counting
      as 0; `weighted_f1` weights by samples. All as in scikit-learn with zero_division=0.
    - `log_loss`: mean −ln of the true class's probability, which is taken as 1e-12 at least.
    - `brier`: mean over samples of the sum over classes of (probability − truth)², from 0 to 2 (Brier 1950).
    - `ece`, `ece_adaptive`: expected calibration error over 15 bins of equal width, of equal numbers of answers.
    """

    n: int
    top1: float
    top5: float
    top1_ci: Interval
    top5_ci: Interval
    balanced_accuracy: float
    macro_precision: float
    macro_f1: float
    weighted_f1: float
    log_loss: float
    brier: float
    ece: float
    ece_adaptive: float
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]  # row: true class, column: answer


def measure(
    probabilities: NDArray[np.floating], targets: Sequence[int] | NDArray[np.int64], classes: Sequence[str]
) -> Metrics:
    """Metrics of probabilities (n, classes) against the true classes (n,), n ≥ 1.

    Of equal probabilities the lower index counts as the likelier class.
    """
    from sklearn.metrics import confusion_matrix

    truth = np.asarray(targets)
    probabilities = np.asarray(probabilities, np.float64)
    answers = probabilities.argmax(axis=1)
    right, among_five = answers == truth, _among_five(probabilities, truth)
    losses, distances = picture_losses(probabilities, truth)
    n, confidence = len(truth), probabilities.max(axis=1)
    confusion = confusion_matrix(truth, answers, labels=np.arange(len(classes)))
    return Metrics(
        n=n,
        top1=float(right.mean()),
        top5=float(among_five.mean()),
        top1_ci=wilson(int(right.sum()), n) or (0.0, 1.0),
        top5_ci=wilson(int(among_five.sum()), n) or (0.0, 1.0),
        **_averages(truth, answers, len(classes)),
        log_loss=float(losses.mean()),
        brier=float(distances.mean()),
        ece=expected_calibration_error(confidence, right),
        ece_adaptive=adaptive_calibration_error(confidence, right),
        per_class=_per_class(confusion, classes),
        confusion=tuple(tuple(int(v) for v in row) for row in confusion),
    )


def intervals(
    probabilities: NDArray[np.floating], targets: Sequence[int] | NDArray[np.int64]
) -> dict[str, Interval | None]:
    """95 % bootstrap intervals over pictures of the figures that are not plain shares (1,000 resamples, fixed seed)."""
    truth = np.asarray(targets)
    probabilities = np.asarray(probabilities, np.float64)
    answers = probabilities.argmax(axis=1)
    losses, distances = picture_losses(probabilities, truth)

    def figures(places: NDArray[np.int64]) -> dict[str, float]:
        averages = _averages(truth[places], answers[places], probabilities.shape[1])
        return averages | {"log_loss": losses[places].mean(), "brier": distances[places].mean()}

    return bootstrap(figures, len(truth), BOOTSTRAPPED)


def picture_losses(
    probabilities: NDArray[np.floating], truth: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each picture's log-loss and Brier score."""
    likelihood = probabilities[np.arange(len(truth)), truth]
    distances = (probabilities**2).sum(axis=1) - 2 * likelihood + 1
    return -np.log(np.clip(likelihood, LEAST, 1.0)), distances


def _among_five(probabilities: NDArray[np.floating], truth: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether fewer than five classes stand before the true one."""
    own = probabilities[np.arange(len(truth)), truth][:, None]
    before = (probabilities > own) | ((probabilities == own) & (np.arange(probabilities.shape[1]) < truth[:, None]))
    among: NDArray[np.bool_] = before.sum(axis=1) < 5
    return among


def _averages(truth: NDArray[np.int64], answers: NDArray[np.int64], classes: int) -> dict[str, float]:
    """The means over classes."""
    samples, given = np.bincount(truth, minlength=classes), np.bincount(answers, minlength=classes)
    hits = np.bincount(truth[truth == answers], minlength=classes)
    there, seen = samples > 0, samples + given > 0
    f1 = 2 * hits[seen] / (samples + given)[seen]
    return {
        "balanced_accuracy": float((hits[there] / samples[there]).mean()),
        "macro_precision": float((hits[seen] / np.maximum(given[seen], 1)).mean()),
        "macro_f1": float(f1.mean()),
        "weighted_f1": float((f1 * samples[seen]).sum() / len(truth)),
    }


def _per_class(confusion: NDArray[np.int64], classes: Sequence[str]) -> tuple[ClassScore, ...]:
    scores = []
    for index, label in enumerate(classes):
        hits, samples, answers = (
            int(v) for v in (confusion[index, index], confusion[index].sum(), confusion[:, index].sum())
        )
        recall = hits / samples if samples else None
        precision = hits / answers if answers else None
        f1 = 2 * hits / (samples + answers) if samples + answers else None
        scores.append(ClassScore(label, samples, recall, precision, f1, wilson(hits, samples), wilson(hits, answers)))
    return tuple(scores)
