"""When to say "none of these": the threshold on the answer's probability, chosen for a precision or a coverage.

An answer counts when its probability reaches the threshold. Coverage is the share of pictures that get an answer,
precision the share of these answers that are right (El-Yaniv and Wiener 2010; risk is 1 − precision).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.errors import UsageError
from taxonet.evaluation.calibration import folds_of
from taxonet.intervals import Interval, wilson


@dataclass(frozen=True)
class Selected:
    """What a threshold does on `n` pictures; intervals are Wilson's at 95 %, precision is None without answers."""

    threshold: float
    n: int
    answered: int
    right: int
    coverage: float
    coverage_ci: Interval
    precision: float | None
    precision_ci: Interval | None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class Choice:
    """A threshold chosen for a target.

    `chosen_on` are the figures on the pictures that chose it, which flatter it a little; `held_out` the figures of the
    same rule when each fifth of the pictures is answered by the threshold that the others choose, None where some fifth
    has none.
    """

    target: str  # "precision" or "coverage"
    wanted: float
    chosen_on: Selected
    held_out: Selected | None

    @property
    def threshold(self) -> float:
        """The chosen threshold."""
        return self.chosen_on.threshold

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        held_out = self.held_out.as_dict() if self.held_out else None
        return {
            f"target_{self.target}": self.wanted,
            "threshold": self.threshold,
            "chosen_on": self.chosen_on.as_dict(),
            "held_out": held_out,
        }


def select(confidence: NDArray[np.floating], right: NDArray[np.bool_], threshold: float) -> Selected:
    """What a threshold does on pictures whose answers have these probabilities."""
    return _selected(confidence >= threshold, right, threshold)


def _selected(answered: NDArray[np.bool_], right: NDArray[np.bool_], threshold: float) -> Selected:
    n, given, hits = len(right), int(answered.sum()), int((right & answered).sum())
    return Selected(
        threshold=float(threshold),
        n=n,
        answered=given,
        right=hits,
        coverage=given / n,
        coverage_ci=wilson(given, n) or (0.0, 1.0),
        precision=hits / given if given else None,
        precision_ci=wilson(hits, given),
    )


def check_target(target: str, wanted: float) -> None:
    """Refuse a target that is no share."""
    if not 0 < wanted <= 1:
        raise UsageError(f"target_{target} is {wanted}, it must be above 0 and at most 1")


def choose_threshold(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], *, target: str, wanted: float
) -> Choice | None:
    """The threshold that answers the most pictures at `wanted` precision, or at least `wanted` of them.

    It lies halfway between two probabilities that occur, so that the last digit of none decides; 0 where every picture
    may be answered. For a precision P at least 1 / (1 − P) answers must remain (20 for 0.95): fewer cannot tell P from
    1. None where no threshold reaches the precision.
    """
    check_target(target, wanted)
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, bool)
    threshold = _threshold(confidence, right, target, wanted)
    if threshold is None:
        return None
    answered = np.zeros(len(right), bool)
    places = folds_of(right.astype(np.int64))
    for fold in range(int(places.max()) + 1):
        others = places != fold
        own = _threshold(confidence[others], right[others], target, wanted) if others.any() else None
        if own is None:
            return Choice(target, wanted, select(confidence, right, threshold), None)
        answered[~others] = confidence[~others] >= own
    return Choice(target, wanted, select(confidence, right, threshold), _selected(answered, right, threshold))


def _threshold(confidence: NDArray[np.floating], right: NDArray[np.bool_], target: str, wanted: float) -> float | None:
    counts, hits, values = _cuts(confidence, right)
    if target == "coverage":
        fits = counts >= math.ceil(wanted * len(right) - 1e-9)
        place = int(np.argmax(fits))  # the strictest that answers enough
    else:
        # integers against the share of counts: 95 of 100 is 0.95 whatever the rounding
        fits = (hits >= wanted * counts - 1e-9) & (counts >= fewest_answers(wanted))
        if not fits.any():
            return None
        place = len(fits) - 1 - int(np.argmax(fits[::-1]))  # the one that answers the most
    if place == len(values) - 1:
        return 0.0
    return float((values[place] + values[place + 1]) / 2)


def fewest_answers(precision: float) -> int:
    """How many answers must remain for a precision to be told from 1; 1,000 for all from 0.999 on, 1 itself too."""
    return math.ceil(1 / (1 - min(precision, 0.999)) - 1e-9)


def _cuts(
    confidence: NDArray[np.floating], right: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating]]:
    """For every probability that occurs, highest first: how many answers reach it, how many of these are right."""
    order = np.argsort(-confidence, kind="stable")
    sure, hits = confidence[order], np.cumsum(right[order], dtype=np.int64)
    last = np.flatnonzero(np.append(np.diff(sure) != 0, True))  # equal probabilities stand or fall together
    return (last + 1).astype(np.int64), hits[last], sure[last]


def risk_coverage(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """The curve: (coverage, risk) for every threshold that makes a difference, from the surest answers to all."""
    counts, hits, _ = _cuts(np.asarray(confidence, np.float64), np.asarray(right, bool))
    return [(float(c) / len(right), 1 - float(h) / float(c)) for c, h in zip(counts, hits, strict=True)]


def area_under_risk(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Mean risk over the coverages 1/n, 2/n, …, 1 (AURC; Geifman et al. 2019, arXiv 1805.08206); ties are averaged."""
    counts, hits, _ = _cuts(np.asarray(confidence, np.float64), np.asarray(right, bool))
    steps = np.diff(np.concatenate([[0], counts]))
    gained = np.diff(np.concatenate([[0], hits]))
    # within a tie the wrong answers are spread evenly
    rates = np.repeat(1 - gained / steps, steps)
    return float((np.cumsum(rates) / np.arange(1, len(right) + 1)).mean())


def targets_table(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """For the usual targets the threshold that fits these pictures and what it does; unreachable ones are left out."""
    asked = [("precision", p) for p in (0.9, 0.95, 0.98, 0.99)] + [("coverage", c) for c in (0.95, 0.9, 0.8, 0.5)]
    choices = (choose_threshold(confidence, right, target=target, wanted=wanted) for target, wanted in asked)
    return [choice.as_dict() | {"target": choice.target, "wanted": choice.wanted} for choice in choices if choice]
