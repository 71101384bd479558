"""Engines: what runs a model. An engine takes prepared pixels and gives logits.

Scaling, normalisation and layout are part of the engine; decoding, resizing and cropping happen before it. `torch` is
the reference, the others run the same graph (`inference/conversion.py`) with the library of their name.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from taxonet.errors import UsageError, nearest
from taxonet.inference.engines.torch_engine import TorchEngine

ENGINES = ("torch", "openvino", "onnxruntime")


class Engine(Protocol):
    """What runs a model.

    `streams` is how many calls of `run` are useful at the same time: an engine of one stream uses all cores for a call,
    one of as many streams as cores uses one core for a call of several pictures.
    """

    name: str
    streams: int

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, classes), before the temperature, of pixels (N, H, W, C); any thread may call it at any time."""


def run_on_all(engine: Engine, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """`engine.run` for a caller who is alone: the pictures are shared out among the streams."""
    parts = min(engine.streams, len(pixels))
    if parts < 2:
        return engine.run(pixels)
    with ThreadPoolExecutor(parts) as pool:
        return np.concatenate(list(pool.map(engine.run, np.array_split(pixels, parts))))


def check_engine(name: str) -> None:
    """Refuse an engine that is not there."""
    if name not in ("auto", *ENGINES):
        choices = ", ".join(("auto", *ENGINES))
        raise UsageError(f"there is no engine '{name}', it must be one of: {choices}{nearest(str(name), ENGINES)}")


__all__ = ["ENGINES", "Engine", "TorchEngine", "check_engine", "run_on_all"]
