"""OpenVINO: the default engine on a CPU."""

import queue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.inference.engines.libraries import import_openvino
from taxonet.inference.engines.threads import thread_count


class OpenVinoEngine:
    """A model of pixels → logits, compiled for the CPU in float32: as many streams as cores, one thread each."""

    name = "openvino"

    def __init__(self, model: Any) -> None:
        """`model` is an `openvino.Model` or the path of its `.xml`."""
        openvino = import_openvino()
        self.streams = thread_count()
        properties = {
            "INFERENCE_PRECISION_HINT": "f32",  # without it a CPU with bfloat16 would round
            "NUM_STREAMS": str(self.streams),
            "INFERENCE_NUM_THREADS": str(self.streams),
        }
        compiled = openvino.Core().compile_model(model, "CPU", properties)
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.streams):
            self._requests.put(compiled.create_infer_request())

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, classes) of pixels (N, H, W, C)."""
        request = self._requests.get()
        try:
            found = request.infer([np.ascontiguousarray(pixels)], share_inputs=True)
            logits: NDArray[np.float32] = np.array(found[0], np.float32)
        finally:
            self._requests.put(request)
        return logits
