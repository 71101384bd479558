"""ONNX Runtime: the second engine, for where its format is wanted."""

import os
import queue
import threading
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.inference.engines.libraries import import_onnxruntime
from taxonet.machine import thread_count


class OnnxRuntimeEngine:
    """A graph of pixels → logits in an `.onnx` file: one session of one thread whose calls run side by side, and one
    of all cores for a picture that comes alone; each is opened when it is first needed."""

    name = "onnxruntime"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.streams = thread_count()
        self._lock = threading.Lock()
        self._turns: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(self.streams):
            self._turns.put(None)
        self._busy = 0

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, classes) of pixels (N, H, W, C)."""
        with self._lock:
            session = self._single if len(pixels) == 1 and self._busy == 0 else self.session
            self._busy += 1
        try:
            turn = self._turns.get()
            try:
                logits: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: pixels})[0]
            finally:
                self._turns.put(turn)
        finally:
            with self._lock:
                self._busy -= 1
        return logits

    @cached_property
    def _single(self) -> Any:
        return self.session if self.streams == 1 else open_session(self.path, self.streams)

    @cached_property
    def session(self) -> Any:
        """The session of one thread."""
        return open_session(self.path, 1)


def open_session(path: str | os.PathLike[str], threads: int) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # what it has to say of a broken file comes as an exception
    return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
