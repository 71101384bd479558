"""Whether the pictures that come look like those the model was trained on: how far the mean of the latest ones is from
that of the training pictures, in figures of what the network sees (`images/statistics.py`)."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from taxonet.images.statistics import FEATURES

WINDOW = 500  # the latest pictures
LEAST = 30  # of them before a drift is told
LEAST_SPREAD = 1e-3  # of a figure whose training pictures are all alike


class Drift:
    """The latest pictures of one model against its training statistics."""

    def __init__(self, trained: Mapping[str, Any]) -> None:
        """`trained` is what `images.statistics` made; what is something else, or nothing, gives no drift."""
        try:
            self._mean = np.array([float(trained["features"][name]["mean"]) for name in FEATURES])
            self._std = np.array([max(LEAST_SPREAD, float(trained["features"][name]["std"])) for name in FEATURES])
            self.known = bool(np.isfinite(self._mean).all() and np.isfinite(self._std).all())
        except (KeyError, TypeError, ValueError):
            self.known = False
        self._latest: deque[Sequence[float]] = deque(maxlen=WINDOW)

    def add(self, picture: Sequence[float]) -> None:
        """Note a picture's figures."""
        if self.known:
            self._latest.append(picture)

    def distances(self) -> dict[str, float]:
        """For each figure how many standard deviations of the training pictures the mean of the latest ones is from
        theirs; nothing before there are enough of them."""
        if not self.known or len(self._latest) < LEAST:
            return {}
        apart = np.abs(np.mean(self._latest, axis=0) - self._mean) / self._std
        return {name: float(value) for name, value in zip(FEATURES, apart, strict=True)}
