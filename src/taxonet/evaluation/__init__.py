"""Numbers that hold: metrics with intervals, and the report that shows them."""

from taxonet.evaluation.evaluate import Evaluation, Outcome, evaluate, evaluate_samples
from taxonet.evaluation.metrics import ClassScore, Metrics, measure

__all__ = ["ClassScore", "Evaluation", "Metrics", "Outcome", "evaluate", "evaluate_samples", "measure"]
