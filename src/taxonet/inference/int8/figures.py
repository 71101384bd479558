"""Two networks on the same photos: how many answers each has right, what the second lost, and how sure that is."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.intervals import Interval, Z, wilson


@dataclass(frozen=True)
class Drop:
    """Top-1 of a network before and after, on `n` photos; `points` is the loss in percentage points, below 0 a gain.

    `lost` photos only the first network had right, `gained` only the second. Intervals are 95 %: Wilson's for the
    accuracies, for the loss that of Agresti and Min (2005, doi 10.1002/sim.1781), which keeps a width where no answer
    changed. `agreement` is the share of photos that both give the same class.
    """

    n: int
    before: float
    before_ci: Interval
    after: float
    after_ci: Interval
    lost: int
    gained: int
    points: float
    points_ci: Interval
    agreement: float
    log_loss_before: float
    log_loss_after: float

    @property
    def one_photo(self) -> float:
        """How many points a single photo weighs."""
        return 100 / self.n

    def within(self, points: float) -> bool:
        """Whether the loss, as measured, is not above so many points."""
        return self.points <= points + 1e-9

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def compare(
    before: NDArray[np.float32], after: NDArray[np.float32], targets: NDArray[np.int64], temperature: float
) -> Drop:
    """Compare the logits (n, classes) of two networks on photos of known classes (n,)."""
    first, second = before.argmax(axis=1) == targets, after.argmax(axis=1) == targets
    n, lost, gained = len(targets), int((first & ~second).sum()), int((second & ~first).sum())
    return Drop(
        n=n,
        before=float(first.mean()),
        before_ci=_share(int(first.sum()), n),
        after=float(second.mean()),
        after_ci=_share(int(second.sum()), n),
        lost=lost,
        gained=gained,
        points=100 * (lost - gained) / n,
        points_ci=_paired(lost, gained, n),
        agreement=float((before.argmax(axis=1) == after.argmax(axis=1)).mean()),
        log_loss_before=_log_loss(before / temperature, targets),
        log_loss_after=_log_loss(after / temperature, targets),
    )


def _share(hits: int, n: int) -> Interval:
    found = wilson(hits, n)
    assert found is not None  # there are photos
    return found


def _paired(lost: int, gained: int, n: int) -> Interval:
    """Interval of the loss in points: Wald's after half a photo is added to each cell of the table of pairs."""
    b, c, total = lost + 0.5, gained + 0.5, n + 2
    middle = (b - c) / total
    half = Z * math.sqrt(b + c - (b - c) ** 2 / total) / total
    return 100 * (middle - half), 100 * (middle + half)


def _log_loss(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    from scipy.special import log_softmax

    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(targets)), targets].mean())


def logit_error(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """The root mean square of the change of the logits, relative to their deviation over classes and photos.

    Adding a number to all logits of a photo changes no answer, so both are taken around each photo's mean.
    """
    own = before - before.mean(axis=1, keepdims=True)
    change = (after - after.mean(axis=1, keepdims=True)) - own
    return float(np.sqrt(np.square(change).mean() / max(float(np.square(own).mean()), 1e-30)))
