"""A validation split made by us: stratified, seeded, the same on every machine."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from taxonet.data.sources import Sample
from taxonet.errors import UsageError


def stratified_split(
    samples: Sequence[Sample], fraction: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Split samples into (training, validation), class by class.

    Every class gives about `fraction` of its samples to validation: at least one where it has two, never all.
    A class with one sample keeps it for training.

    Raises:
        UsageError: `fraction` is not above 0 and below 1.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"val_fraction is {fraction}, it must be above 0 and below 1")
    by_class: dict[str, list[int]] = defaultdict(list)
    for position, sample in enumerate(samples):
        by_class[sample.label].append(position)
    rng = np.random.default_rng([seed, 0x5711])  # its own stream: the split does not move when training draws more
    chosen: set[int] = set()
    for label in sorted(by_class):
        positions = sorted(by_class[label], key=lambda p: samples[p].path)  # the order of a table does not matter
        count = min(max(1, round(fraction * len(positions))), len(positions) - 1)
        chosen.update(int(p) for p in rng.permutation(positions)[:count])
    train = tuple(s for i, s in enumerate(samples) if i not in chosen)
    validation = tuple(s for i, s in enumerate(samples) if i in chosen)
    return train, validation
