"""The libraries of the engines, imported so that they send nothing.

Importing openvino, or converting with it, sends an event over the network without asking where the package
openvino-telemetry is installed. Without that package openvino and nncf use their own stubs, which do nothing.
"""

import importlib
import sys
from types import ModuleType


def import_openvino() -> ModuleType:
    """The module openvino, which sends nothing from here on even where somebody else has imported it before."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # an import of it fails from here on
    openvino = importlib.import_module("openvino")
    telemetry = importlib.import_module("openvino.tools.ovc.telemetry_utils")
    stub = importlib.import_module("openvino.tools.ovc.telemetry_stub")
    telemetry.tm = stub  # type: ignore[attr-defined]
    return openvino
