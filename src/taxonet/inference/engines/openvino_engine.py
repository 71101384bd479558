"""OpenVINO: the default engine on a CPU."""

import queue
import threading
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.inference.engines.libraries import import_openvino
from taxonet.machine import thread_count

TRIES = 5  # compilations for several streams, until one answers as a single stream does
SAME = 0.1  # of the largest logit: rounding is far below, a wrong program beyond 1


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
            return self._answer(requests, np.ascontiguousarray(pixels))
        finally:
            with self._lock:
                self._busy -= 1

    @cached_property
    def _single(self) -> queue.SimpleQueue[Any]:
        return self._several if self.streams == 1 else self._compile(1)

    @cached_property
    def _several(self) -> queue.SimpleQueue[Any]:
        """The requests of the streams, checked where the graph is int8.

        OpenVINO 2026.4.1 compiles some int8 graphs for several streams into one of two programs by chance, and one of
        them is wrong (9 of 16 times for a BN-Inception); for one stream it was right in 16 of 16.
        """
        if self.streams == 1 or not self._is_int8:
            return self._compile(self.streams)
        for _ in range(TRIES):
            requests = self._compile(self.streams)
            if self._agrees(requests):
                return requests
        return self._single  # slower and right

    @cached_property
    def _is_int8(self) -> bool:
        return any(node.get_type_name() == "FakeQuantize" for node in self.model.get_ops())

    def _agrees(self, requests: queue.SimpleQueue[Any]) -> bool:
        """Whether streams answer a picture that we draw as a single stream does, up to the rounding of int8."""
        shape = [1, *(size.get_length() for size in list(self.model.input(0).partial_shape)[1:])]
        drawn = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        drawn = np.sort(drawn, axis=1)  # light below, dark above: noise alone looks the same to a network everywhere
        one, several = (self._answer(queue_, drawn) for queue_ in (self._single, requests))
        return bool(np.abs(one - several).max() <= SAME * np.abs(one).max())

    @staticmethod
    def _answer(requests: queue.SimpleQueue[Any], pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        request = requests.get()
        try:
            found = request.infer([pixels], share_inputs=True)
            return np.array(found[0], np.float32)
        finally:
            requests.put(request)

    def _compile(self, streams: int) -> queue.SimpleQueue[Any]:
        """The requests of a compiled model: who takes one out may use it."""
        openvino = import_openvino()
        properties = {
            "INFERENCE_PRECISION_HINT": "f32",  # without it a CPU with bfloat16 would round
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": str(self.streams),
            "ENABLE_CPU_PINNING": "NO",  # two processes side by side would be bound to the same cores, and take turns
        }
        compiled = openvino.Core().compile_model(self.model, "CPU", properties)
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            requests.put(compiled.create_infer_request())
        return requests
