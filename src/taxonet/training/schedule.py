"""The learning rate as a pure function of how far the training is."""

import math

from taxonet.training.recipe import Recipe


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The rate at `epoch` (0 ≤ epoch < epochs, with its fraction): linear warm-up, then the schedule."""
    if epoch < recipe.warmup_epochs:
        return recipe.lr * max(epoch, 1e-3 * recipe.warmup_epochs) / recipe.warmup_epochs
    if recipe.schedule in ("cosine", "linear"):
        done = (epoch - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9)
        return recipe.lr * (0.5 * (1 + math.cos(math.pi * done)) if recipe.schedule == "cosine" else 1 - done)
    if recipe.schedule == "step":
        passed = sum(epoch >= fraction * recipe.epochs for fraction in recipe.milestones)
        return float(recipe.lr * recipe.gamma**passed)
    if recipe.schedule == "exponential":
        return float(recipe.lr * recipe.decay_rate ** (epoch // recipe.decay_epochs))
    return recipe.lr
