"""Mixup and CutMix: a batch is mixed with itself in another order, a pure function of (seed, epoch, step).

Mixup (Zhang et al. 2018, arXiv 1710.09412, §2) blends two pictures and their labels with a share λ ~ Beta(α, α).
CutMix (Yun et al. 2019, arXiv 1905.04899, §3.1) puts a rectangle of one picture into the other; the labels are mixed by
the area that is really covered. Where a recipe has both, a coin decides for each batch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taxonet.training.recipe import Recipe

Box = tuple[int, int, int, int]  # upper, left, lower, right


@dataclass(frozen=True)
class Mix:
    """How one batch is mixed: row i keeps `share` of itself and takes the rest from row `partner[i]`.

    `box` is CutMix's rectangle in pixels of pictures of `size` (height, width); None blends whole pictures.
    """

    partner: NDArray[np.int64]
    share: float
    size: tuple[int, int]
    box: Box | None = None

    def pictures(self, own: Tensor, other: Tensor) -> Tensor:
        """Mix pictures (N, C, H, W) with those of their partners; of another size the rectangle is scaled."""
        if self.box is None:
            return own.lerp(other, 1 - self.share)
        upper, left, lower, right = self._box_at(own.shape[2], own.shape[3])
        mixed = own.clone()
        mixed[:, :, upper:lower, left:right] = other[:, :, upper:lower, left:right]
        return mixed

    def targets(self, own: Tensor, other: Tensor) -> Tensor:
        """Mix targets (N, classes) with those of their partners."""
        return own.lerp(other, 1 - self.share)

    def _box_at(self, height: int, width: int) -> Box:
        if self.box is None or (height, width) == self.size:
            return self.box or (0, 0, 0, 0)
        down, across = height / self.size[0], width / self.size[1]
        upper, left, lower, right = self.box
        return round(upper * down), round(left * across), round(lower * down), round(right * across)


def draw_mix(recipe: Recipe, epoch: int, step: int, count: int, size: tuple[int, int]) -> Mix | None:
    """The mix of a batch of `count` pictures of `size` (height, width); None where the recipe mixes nothing."""
    if count < 2 or not (recipe.mixup or recipe.cutmix):
        return None
    rng = np.random.default_rng([recipe.seed, epoch, step, 4])
    cut = bool(recipe.cutmix) and (not recipe.mixup or rng.random() < 0.5)
    alpha = recipe.cutmix if cut else recipe.mixup
    share, partner = float(rng.beta(alpha, alpha)), rng.permutation(count)
    if not cut:
        return Mix(partner, share, size)
    box = _rectangle(share, size, rng)
    covered = (box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1])
    return Mix(partner, 1 - covered, size, box)


def _rectangle(share: float, size: tuple[int, int], rng: np.random.Generator) -> Box:
    """A rectangle of the picture's own shape that covers 1 − `share`, its centre anywhere; what hangs over is lost."""
    cut = (1 - share) ** 0.5
    ends = []
    for side in size:
        length, centre = round(side * cut), int(rng.integers(side))
        start = centre - length // 2
        ends.append((min(max(start, 0), side), min(max(start + length, 0), side)))
    (upper, lower), (left, right) = ends
    return upper, left, lower, right


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Targets (N, classes) of labels (N,)."""
    return torch.nn.functional.one_hot(labels, classes).float()
