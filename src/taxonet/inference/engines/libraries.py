"""The libraries of the engines, imported so that they send nothing.

Importing openvino, or converting with it, sends an event over the network without asking where the package
openvino-telemetry is installed. Without that package openvino and nncf use their own stubs, which do nothing.
"""

import importlib
import importlib.util
import sys
import threading
from types import ModuleType

import numpy as np

from taxonet.errors import UsageError

_IMPORTING = threading.Lock()
ONNX = ("onnx", "onnxruntime", "onnxscript")


def import_openvino() -> ModuleType:
    """The module openvino, which sends nothing from here on even where somebody else has imported it before."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # an import of it fails from here on
    with _IMPORTING:
        openvino = importlib.import_module("openvino")
        telemetry = importlib.import_module("openvino.tools.ovc.telemetry_utils")
        telemetry.tm = importlib.import_module("openvino.tools.ovc.telemetry_stub")  # type: ignore[attr-defined]
        _make_type_tables(openvino)
    return openvino


def _make_type_tables(openvino: ModuleType) -> None:
    """Let openvino's bindings build their tables of numpy's types while nobody else calls them.

    They are built at first use; where two threads are the first at the same time, one waits for the table and holds
    the interpreter's lock that the other needs to build it, and the process stands still for good.
    """
    openvino.Type.u8.to_dtype()
    np.array(openvino.Tensor(np.zeros(1, np.uint8), shared_memory=True).data)


def import_onnxruntime() -> ModuleType:
    """The module onnxruntime; UsageError where it is not installed."""
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise UsageError("the engine onnxruntime is not installed: pip install 'taxonet[onnx]'") from error
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def can_write_onnx() -> bool:
    """Whether the extra `onnx` is installed."""
    return all(importlib.util.find_spec(name) for name in ONNX)


def check_onnx() -> None:
    """UsageError with the command where the extra `onnx` is missing."""
    if not can_write_onnx():
        missing = [name for name in ONNX if not importlib.util.find_spec(name)]
        raise UsageError(f"ONNX needs {' and '.join(missing)}: pip install 'taxonet[onnx]'")
