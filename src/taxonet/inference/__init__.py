"""From a model and pictures to labels."""

from taxonet.inference.classifier import Classifier, LabelScore, Prediction, load, predict

__all__ = ["Classifier", "LabelScore", "Prediction", "load", "predict"]
