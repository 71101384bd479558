"""Taxonet: the classic image classifiers, faithful to their papers and ready for work.

Everything is imported when it is first used: `import taxonet` loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from taxonet._version import __version__

if TYPE_CHECKING:
    from taxonet.checking import CheckReport, check
    from taxonet.errors import BundleError, DataError, DownloadError, ImageError, TaxonetError, UsageError
    from taxonet.evaluation import CalibrationResult, Evaluation, calibrate, evaluate
    from taxonet.evaluation.comparison import Comparison, compare
    from taxonet.evaluation.explanation import Explanation, explain
    from taxonet.images import Preprocessing
    from taxonet.inference import Classifier, PredictedFiles, Prediction, load, predict, predict_files
    from taxonet.inference.export import Export, export
    from taxonet.information import ModelInfo, draw, info
    from taxonet.networks import list_models
    from taxonet.serving import serve
    from taxonet.training import Recipe, TrainedComparison, TrainResult, train, train_and_compare
    from taxonet.weights.creation import create_model
    from taxonet.weights.import_weights import Imported, import_weights
    from taxonet.weights.pulling import Pulled, pull

_HOME = {
    "BundleError": "errors",
    "CalibrationResult": "evaluation",
    "CheckReport": "checking",
    "Classifier": "inference",
    "Comparison": "evaluation.comparison",
    "DataError": "errors",
    "DownloadError": "errors",
    "Evaluation": "evaluation",
    "Explanation": "evaluation.explanation",
    "Export": "inference.export",
    "ImageError": "errors",
    "Imported": "weights.import_weights",
    "ModelInfo": "information",
    "PredictedFiles": "inference",
    "Prediction": "inference",
    "Preprocessing": "images",
    "Pulled": "weights.pulling",
    "Recipe": "training",
    "TaxonetError": "errors",
    "TrainResult": "training",
    "TrainedComparison": "training",
    "UsageError": "errors",
    "calibrate": "evaluation",
    "check": "checking",
    "compare": "evaluation.comparison",
    "create_model": "weights.creation",
    "draw": "information",
    "evaluate": "evaluation",
    "explain": "evaluation.explanation",
    "export": "inference.export",
    "import_weights": "weights.import_weights",
    "info": "information",
    "list_models": "networks",
    "load": "inference",
    "predict": "inference",
    "predict_files": "inference",
    "pull": "weights.pulling",
    "serve": "serving",
    "train": "training",
    "train_and_compare": "training",
}

__all__ = [
    "BundleError",
    "CalibrationResult",
    "CheckReport",
    "Classifier",
    "Comparison",
    "DataError",
    "DownloadError",
    "Evaluation",
    "Explanation",
    "Export",
    "ImageError",
    "Imported",
    "ModelInfo",
    "PredictedFiles",
    "Prediction",
    "Preprocessing",
    "Pulled",
    "Recipe",
    "TaxonetError",
    "TrainResult",
    "TrainedComparison",
    "UsageError",
    "__version__",
    "calibrate",
    "check",
    "compare",
    "create_model",
    "draw",
    "evaluate",
    "explain",
    "export",
    "import_weights",
    "info",
    "list_models",
    "load",
    "predict",
    "predict_files",
    "pull",
    "serve",
    "train",
    "train_and_compare",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'taxonet' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"taxonet.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
