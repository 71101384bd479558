"""OpenVINO: the default engine on a CPU."""

import queue
import threading
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.inference.engines.libraries import import_openvino
from taxonet.machine import thread_count


class OpenVinoEngine:
    """A graph of pixels → logits on the CPU in float32, compiled twice, each when it is first needed.

    Several pictures go through one of as many streams as there are cores, each with one thread, so that callers on
    several threads share the cores without waiting for each other. One picture that comes alone goes through a stream
    with all cores.
    """

    name = "openvino"

    def __init__(self, model: Any) -> None:
        """`model` is an `openvino.Model`."""
        self.model = model
        self.streams = thread_count()
        self._lock = threading.Lock()
        self._busy = 0

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, classes) of pixels (N, H, W, C)."""
        with self._lock:
            alone = len(pixels) == 1 and self._busy == 0
            requests = self._single if alone else self._several
            self._busy += 1
        try:
            request = requests.get()
            try:
                found = request.infer([np.ascontiguousarray(pixels)], share_inputs=True)
                logits: NDArray[np.float32] = np.array(found[0], np.float32)
            finally:
                requests.put(request)
        finally:
            with self._lock:
                self._busy -= 1
        return logits

    @cached_property
    def _single(self) -> queue.SimpleQueue[Any]:
        return self._several if self.streams == 1 else self._compile(1)

    @cached_property
    def _several(self) -> queue.SimpleQueue[Any]:
        return self._compile(self.streams)

    def _compile(self, streams: int) -> queue.SimpleQueue[Any]:
        """The requests of a compiled model: who takes one out may use it."""
        openvino = import_openvino()
        properties = {
            "INFERENCE_PRECISION_HINT": "f32",  # without it a CPU with bfloat16 would round
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": str(self.streams),
        }
        compiled = openvino.Core().compile_model(self.model, "CPU", properties)
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            requests.put(compiled.create_infer_request())
        return requests
