"""LitServe's part of `peers.py`, in a module of its own since it starts its worker by pickling the class."""

import litserve
import numpy as np
from peers import answer_of, pixels_of

BATCH, WAIT = 16, 0.01


class Api(litserve.LitAPI):
    def __init__(self, kind: type, bundle: str, onnx: str) -> None:
        super().__init__(max_batch_size=BATCH, batch_timeout=WAIT)
        self.what = kind, bundle, onnx

    def setup(self, device: str) -> None:
        kind, bundle, onnx = self.what
        self.network = kind(bundle, onnx)

    def decode_request(self, request):
        return pixels_of(request["request"].file.read())

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, batch):
        return self.network(batch)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return answer_of(output)


def serve_litserve(kind: type, port: int, bundle: str, onnx: str) -> None:
    server = litserve.LitServer(Api(kind, bundle, onnx), accelerator="cpu", workers_per_device=1)
    server.run(port=port, generate_client_file=False, log_level="warning")
