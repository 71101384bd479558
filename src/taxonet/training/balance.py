"""Classes of unequal size: when something is done about them, and what.

`sampling` shows every class equally often; `loss` shows every picture once an epoch and weighs its loss by its class.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from taxonet.training.recipe import Recipe

IMBALANCED = 3.0  # largest class over smallest from which on something is done


def ratio_of(counts: Sequence[int]) -> float:
    """Pictures of the largest class over those of the smallest."""
    return max(counts) / max(min(counts), 1)


def decide(counts: Sequence[int]) -> tuple[str, str]:
    """What `balance = auto` does for classes of these sizes, and why."""
    ratio = ratio_of(counts)
    sizes = (
        f"the largest class has {ratio:.1f} times the pictures of the smallest ({max(counts):,} and {min(counts):,})"
    )
    if ratio < IMBALANCED:
        return "none", f"{sizes}; from {IMBALANCED:g} on classes are balanced"
    return "loss", f"{sizes}; the loss weighs every class alike, so that small ones are learnt too"


def class_weights(counts: Sequence[int], weighting: str, beta: float) -> NDArray[np.float32]:
    """A weight a class, on average 1 over the pictures, so that the learning rate keeps its meaning.

    `inverse` is 1/n; `effective` is (1 − β)/(1 − βⁿ), the inverse of the effective number of pictures (Cui et al. 2019,
    arXiv 1901.05555, §3.2): 1/n for β → 1, equal weights for β = 0.
    """
    n = np.asarray(counts, np.float64)
    raw = (1 - beta) / (1 - beta**n) if weighting == "effective" else 1 / n
    weights: NDArray[np.float32] = (raw * n.sum() / (raw * n).sum()).astype(np.float32)
    return weights


def weights_of(recipe: Recipe, counts: Sequence[int]) -> list[float] | None:
    """The weight of each class where a classifier is fitted in one piece; None where nothing is balanced.

    What sampling does step by step is the inverse weighting here.
    """
    if recipe.balance == "none":
        return None
    weighting = "inverse" if recipe.balance == "sampling" else recipe.balance_weights
    return [float(weight) for weight in class_weights(counts, weighting, recipe.balance_beta)]


def balanced_order(labels: Sequence[int], rng: np.random.Generator) -> NDArray[np.int64]:
    """As many places as there are pictures, every class equally often (sizes differ by one at most), shuffled.

    The pictures of a class follow each other in a random order that starts again when it ends: of a small class each
    is shown equally often, of a large one none twice.
    """
    truth = np.asarray(labels)
    classes = np.unique(truth)
    quota = np.full(len(classes), len(truth) // len(classes))
    quota[rng.permutation(len(classes))[: len(truth) % len(classes)]] += 1
    chosen = []
    for label, wanted in zip(classes, quota, strict=True):
        places = np.flatnonzero(truth == label)
        rounds = [rng.permutation(places) for _ in range(-(-int(wanted) // len(places)))]
        chosen.append(np.concatenate([*rounds, places[:0]])[:wanted])
    return rng.permutation(np.concatenate(chosen)).astype(np.int64)


def occurrences(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every place of an order, how often it came before: a picture shown again is augmented anew."""
    seen: dict[int, int] = {}
    numbers = np.zeros(len(order), np.int64)
    for i, place in enumerate(order.tolist()):
        numbers[i] = seen.get(place, 0)
        seen[place] = int(numbers[i]) + 1
    return numbers
