"""The servers that Taxonet is measured against: `python peers.py NAME PORT BUNDLE ONNX`.

- `fastapi torch`: the handler that a tutorial shows: UploadFile, Pillow, a network of torch in eager mode. It is a
  plain `def`, so FastAPI runs it on a pool of threads; torch keeps its own threads.
- `fastapi onnx`: the same with ONNX Runtime, whose session all threads share.
- `litserve torch`, `litserve onnx`: LitServe with its batching (up to 16 requests, 10 ms), one worker process on all
  cores, decoding in `decode_request`.

All of them decode with Pillow in full and resize, as torchvision's preset does; normalisation is in the ONNX graph, and
with torch in numpy.
"""

import io
import sys

import numpy as np
from PIL import Image

SIZE, CROP = 256, 224


def pixels_of(data: bytes) -> np.ndarray:
    """uint8 (224, 224, 3)."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    ratio = SIZE / min(image.size)
    image = image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.BICUBIC)
    left, top = (image.width - CROP) // 2, (image.height - CROP) // 2
    return np.asarray(image.crop((left, top, left + CROP, top + CROP)))


class Torch:
    def __init__(self, bundle: str, _: str) -> None:
        import torch

        from taxonet.weights.networks import open_model

        _, network = open_model(bundle)
        self.torch, self.network = torch, network.eval()
        self.mean = np.array([0.485, 0.456, 0.406], np.float32)
        self.std = np.array([0.229, 0.224, 0.225], np.float32)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        batch = ((pixels.astype(np.float32) / 255 - self.mean) / self.std).transpose(0, 3, 1, 2)
        with self.torch.inference_mode():
            return self.network(self.torch.from_numpy(np.ascontiguousarray(batch))).softmax(1).numpy()


class Onnx:
    def __init__(self, _: str, onnx: str) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        logits = self.session.run(None, {self.name: pixels})[0]
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponents / exponents.sum(axis=1, keepdims=True)


def answer_of(scores: np.ndarray) -> dict:
    best = int(scores.argmax())
    return {"index": best, "probability": float(scores[best])}


def serve_fastapi(network, port: int) -> None:
    import uvicorn
    from fastapi import FastAPI, UploadFile

    app = FastAPI()

    @app.post("/predict")
    def predict(file: UploadFile) -> dict:
        return answer_of(network(pixels_of(file.file.read())[None])[0])

    uvicorn.run(app, port=port, log_level="warning")


if __name__ == "__main__":
    name, port, bundle, onnx = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    kind = Torch if name.endswith("torch") else Onnx
    if name.startswith("fastapi"):
        serve_fastapi(kind(bundle, onnx), port)
    else:
        from litserve_peer import serve_litserve

        serve_litserve(kind, port, bundle, onnx)
