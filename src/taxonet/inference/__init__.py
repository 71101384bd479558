"""From a model and pictures to labels."""

from taxonet.inference.classifier import Classifier, LabelScore, Prediction, predict
from taxonet.inference.job import PredictedFiles, predict_files
from taxonet.inference.opening import load

__all__ = ["Classifier", "LabelScore", "PredictedFiles", "Prediction", "load", "predict", "predict_files"]
