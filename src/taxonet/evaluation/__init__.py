"""Numbers that hold: metrics with intervals, calibration, robustness, and the report that shows them."""

from taxonet.evaluation.calibrate import CalibrationResult, calibrate
from taxonet.evaluation.calibration import Calibration, fit_calibration, fit_temperature
from taxonet.evaluation.evaluate import Evaluation, Outcome, Scores, evaluate, evaluate_samples
from taxonet.evaluation.metrics import ClassScore, Metrics, measure

__all__ = [
    "Calibration",
    "CalibrationResult",
    "ClassScore",
    "Evaluation",
    "Metrics",
    "Outcome",
    "Scores",
    "calibrate",
    "evaluate",
    "evaluate_samples",
    "fit_calibration",
    "fit_temperature",
    "measure",
]
