"""Temperature scaling: one number that makes a network's probabilities mean what they say (Guo et al. 2017).

The softmax of logits / T keeps every answer and its order; only how sure it sounds changes. T is fitted on pictures
that were not trained on, by their log-loss, and what it is worth is measured on pictures that it was not fitted on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.evaluation.metrics import picture_losses
from taxonet.evaluation.reliability import expected_calibration_error
from taxonet.intervals import Interval, bootstrap

FOLDS = 5
SEED = 0xCA1
COLDEST, WARMEST = 0.05, 20.0  # a temperature beyond these is no calibration, the data says nothing about it
STEPS = 100


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature; `reason` says why it is 1 where the pictures do not determine one."""

    value: float
    reason: str | None = None


@dataclass(frozen=True)
class Calibration:
    """A temperature with its effect on `n` pictures, measured by cross-fitting.

    The pictures are divided into folds, stratified by class; each fold is scored with the temperature that the others
    give, so that `after` is on pictures not used for fitting. `before` is the same pictures without a temperature: one
    that the bundle has already may have been fitted on these very pictures.
    `log_loss_change_ci` is a 95 % bootstrap interval over pictures of after − before.

    A temperature that does not lower the log-loss of the pictures it was not fitted on is not kept: the one that the
    bundle has stays, `after` is with that one, and `reason` gives the figures.
    """

    temperature: float
    n: int
    folds: int
    before: Mapping[str, float]  # log_loss, ece
    after: Mapping[str, float]
    log_loss_change_ci: Interval | None
    held_out: NDArray[np.float64] = field(compare=False, repr=False)  # (n,): what scored each picture in `after`
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; without the temperature of each picture."""
        shown = {name: value for name, value in vars(self).items() if name != "held_out"}
        return shown | {"before": dict(self.before), "after": dict(self.after)}


def softened(logits: NDArray[np.floating], temperature: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Probabilities (n, classes) in float64 of logits and one temperature, or one a row."""
    divided = np.asarray(logits, np.float64) / np.reshape(temperature, (-1, 1))
    exponents = np.exp(divided - divided.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = exponents / exponents.sum(axis=1, keepdims=True)
    return probabilities


def fit_temperature(logits: NDArray[np.floating], targets: NDArray[np.int64]) -> Temperature:
    """The temperature of the least log-loss on pictures.

    The loss is convex in 1 / T, so that Newton's method, kept in an ever narrower bracket, finds the one minimum. Where
    there is none (all answers right with room to spare, or no better than chance) T stays 1 and `reason` says why.

    Args:
        logits: (n, classes), before any temperature.
        targets: the true classes, (n,).
    """
    logits, targets = np.asarray(logits, np.float64), np.asarray(targets)
    low, high = 1 / WARMEST, 1 / COLDEST
    if _slopes(logits, targets, low)[0] >= 0:
        return Temperature(1.0, "the answers are no better than chance: no temperature fits")
    if _slopes(logits, targets, high)[0] <= 0:
        return Temperature(1.0, f"all {len(targets)} answers are right or nearly so: no temperature fits best")
    inverse = 1.0
    for _ in range(STEPS):
        slope, curvature = _slopes(logits, targets, inverse)
        if slope == 0:
            break
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-12 * inverse:
            break
        inverse = following
    return Temperature(float(1 / inverse))


def _slopes(logits: NDArray[np.floating], targets: NDArray[np.int64], inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean log-loss by 1 / T: mean of E[z] − z_true, and of Var[z]."""
    probabilities = softened(logits, 1 / inverse)
    mean = (probabilities * logits).sum(axis=1)
    variance = (probabilities * (logits - mean[:, None]) ** 2).sum(axis=1)
    return float((mean - logits[np.arange(len(targets)), targets]).mean()), float(variance.mean())


def folds_of(targets: NDArray[np.int64], folds: int = FOLDS) -> NDArray[np.int64]:
    """A fold for each picture, the same for the same targets: each class is spread evenly over the folds."""
    shuffled = np.random.default_rng(SEED).permutation(len(targets))
    by_class = shuffled[np.argsort(np.asarray(targets)[shuffled], kind="stable")]
    places = np.empty(len(targets), np.int64)
    places[by_class] = np.arange(len(targets)) % min(folds, len(targets))
    return places


def cross_fitted(logits: NDArray[np.floating], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """A temperature for each picture, fitted on the folds that do not hold it; (n,)."""
    targets, places = np.asarray(targets), folds_of(targets)
    temperatures = np.ones(len(targets))
    for fold in range(int(places.max()) + 1):
        others = places != fold
        if others.any():
            temperatures[~others] = fit_temperature(logits[others], targets[others]).value
    return temperatures


def fit_calibration(logits: NDArray[np.floating], targets: NDArray[np.int64], current: float = 1.0) -> Calibration:
    """Fit a temperature on all pictures, measure by cross-fitting what it is worth, and keep it if it helps.

    Args:
        logits: (n, classes), before any temperature.
        targets: the true classes, (n,).
        current: the temperature that the bundle has, which stays where a new one does not help.
    """
    targets = np.asarray(targets)
    fitted, temperatures = fit_temperature(logits, targets), cross_fitted(logits, targets)
    losses = {
        name: picture_losses(softened(logits, temperature), targets)[0]
        for name, temperature in (("none", 1.0), ("now", current), ("new", temperatures))
    }
    reason = fitted.reason
    if reason is None and losses["new"].mean() >= losses["now"].mean():
        worse = f"{losses['now'].mean():.4f} → {losses['new'].mean():.4f}"
        reason = (
            f"{fitted.value:.4f} fits these {len(targets)} pictures but does not help those held out: log-loss {worse}"
        )
    held_out = temperatures if reason is None else np.full(len(targets), current)
    return Calibration(
        temperature=fitted.value if reason is None else current,
        n=len(targets),
        folds=int(folds_of(targets).max()) + 1,
        before=_figures(softened(logits, 1.0), targets),
        after=_figures(softened(logits, held_out), targets),
        log_loss_change_ci=_interval(losses["new"] - losses["none"]) if reason is None else None,
        held_out=held_out,
        reason=reason,
    )


def _interval(change: NDArray[np.float64]) -> Interval | None:
    return bootstrap(lambda places: {"change": change[places].mean()}, len(change), ("change",))["change"]


def _figures(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> dict[str, float]:
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    return {
        "log_loss": float(picture_losses(probabilities, targets)[0].mean()),
        "ece": expected_calibration_error(confidence, right),
    }
