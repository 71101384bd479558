"""Does a probability of 0.8 mean that 80 of 100 such answers are right? Bins of confidence, and the error over them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15  # Guo et al. 2017 (arXiv 1706.04599), section 5


@dataclass(frozen=True)
class Bin:
    """The answers whose confidence lies in [low, high]: how many, their mean confidence, and how many were right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def equal_width(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> tuple[Bin, ...]:
    """Bins of equal width, [0, 1/15), …, [14/15, 1]; empty ones are left out."""
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    return tuple(
        _bin(confidence, right, places == place, place / bins, (place + 1) / bins) for place in np.unique(places)
    )


def equal_mass(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> tuple[Bin, ...]:
    """Bins of as equal a number of answers as there can be, in order of confidence; ties stay where they are sorted.

    Nixon et al. 2019 (arXiv 1904.01685), section 4: equal widths leave most bins of a sure network nearly empty.
    """
    order = np.argsort(confidence, kind="stable")
    found = []
    for part in np.array_split(order, min(bins, len(order))):
        inside = np.zeros(len(confidence), bool)
        inside[part] = True
        found.append(_bin(confidence, right, inside, float(confidence[part].min()), float(confidence[part].max())))
    return tuple(found)


def _bin(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], inside: NDArray[np.bool_], low: float, high: float
) -> Bin:
    return Bin(
        float(low), float(high), int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean())
    )


def error_over(bins: tuple[Bin, ...]) -> float:
    """Mean distance of confidence and accuracy over bins, weighted by their answers (Guo et al. 2017, equation 3)."""
    total = sum(part.n for part in bins)
    return sum(part.n * abs(part.accuracy - part.confidence) for part in bins) / total


def expected_calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The expected calibration error over 15 bins of equal width.

    It is above 0 for a perfectly calibrated network too, the more so the fewer the pictures: a bin of a few answers
    misses its confidence by chance.
    """
    return float(error_over(equal_width(confidence, right)))


def adaptive_calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The same over 15 bins of equal numbers of answers."""
    return float(error_over(equal_mass(confidence, right)))
