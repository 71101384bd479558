"""Training: from a folder of pictures to a bundle and a report."""

from taxonet.training.recipe import Recipe
from taxonet.training.results import TrainResult
from taxonet.training.side_by_side import TrainedComparison, train_and_compare
from taxonet.training.train import train

__all__ = ["Recipe", "TrainResult", "TrainedComparison", "train", "train_and_compare"]
