"""The Open Inference Protocol, version 2, over HTTP/REST, with the binary extension that Triton's clients use.

A model takes `image`, encoded pictures (BYTES, [n]; base64 in JSON), or `pixels`, what preprocessing gives (UINT8,
[n, height, width, channels]); it answers `probabilities` (FP32, [n, classes]), `index` (INT64, [n]) and `label` (BYTES,
[n]). The protocol has no error for one picture of several: one that cannot be read refuses the request.
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

import asyncio
import base64
import binascii
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from taxonet._version import __version__
from taxonet.errors import TaxonetError, nearest
from taxonet.images import Preprocessing
from taxonet.serving.bodies import LARGE
from taxonet.serving.deployment import Deployment, NoModelError, Served
from taxonet.serving.metrics import Metrics
from taxonet.serving.pool import QueueFullError, WorkerError
from taxonet.serving.problems import ProblemError
from taxonet.serving.settings import Settings

LENGTH = "inference-header-content-length"  # of the JSON before binary data
OUTPUTS = {"probabilities": "FP32", "index": "INT64", "label": "BYTES"}
MAX_NUMBERS = 1_600_000  # of a request in JSON, about ten pictures: reading them stops all else
_SIZE = struct.Struct("<I")
_STATES: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"schema": {"type": "object"}}}}}
_ERROR = {
    "content": {
        "application/json": {
            "schema": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
        }
    }
}


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    words = {400: "The request is wrong.", 404: "There is no such model.", 500: "The model failed.", 503: "Not now."}
    problem = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    found: dict[int | str, dict[str, Any]] = {status: {"description": words[status], **_ERROR} for status in statuses}
    for status, words_of in ((401, "A token is needed."), (408, "Too slow."), (413, "Too large."), (504, "Too slow.")):
        found[status] = {"description": words_of, "content": problem["content"] | _ERROR["content"]}
    return _STATES | found


class _RefusedError(TaxonetError):
    """A request that is refused, as the protocol words it."""

    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True)
class Inference:
    """A request, read: items with their bodies, and what is asked of the answer."""

    identity: str | None
    heads: list[dict[str, Any]]
    bodies: list[bytes]
    outputs: dict[str, bool]  # name → binary


def add_v2(app: FastAPI, settings: Settings, deployment: Deployment, metrics: Metrics) -> None:
    """Add the routes of the protocol."""
    tags: list[str | Enum] = ["open inference protocol"]

    @app.get("/v2", tags=tags, summary="The server", responses=_responses())
    async def server() -> Response:
        return JSONResponse({"name": "taxonet", "version": __version__, "extensions": ["binary_tensor_data"]})

    @app.get("/v2/health/live", tags=tags, summary="Does it live?", responses=_responses())
    async def live() -> Response:
        return JSONResponse({"live": True})

    @app.get("/v2/health/ready", tags=tags, summary="Can it answer?", responses=_responses(503))
    async def ready() -> Response:
        good = _ready(deployment)
        return JSONResponse({"ready": good}, 200 if good else 503)

    @app.get("/v2/models/{name}", tags=tags, summary="A model's inputs and outputs", responses=_responses(404))
    async def model(name: str) -> Response:
        return await _told(lambda: JSONResponse(_metadata(deployment.find(name))))

    @app.get("/v2/models/{name}/ready", tags=tags, summary="Can a model answer?", responses=_responses(404, 503))
    async def model_ready(name: str) -> Response:
        def said() -> Response:
            deployment.find(name)
            good = _ready(deployment)
            return JSONResponse({"name": name, "ready": good}, 200 if good else 503)

        return await _told(said)

    @app.post(
        "/v2/models/{name}/infer",
        tags=tags,
        summary="Probabilities of encoded pictures or of prepared pixels",
        responses=_responses(400, 404, 500, 503),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": {"type": "object", "required": ["inputs"]}},
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                },
            }
        },
    )
    async def infer(request: Request, name: str) -> Response:
        body, length = await request.body(), request.headers.get(LENGTH)
        try:
            model = deployment.find(name)
            reading = (body, length, model, settings.max_files)
            wanted = _read(*reading) if len(body) < LARGE else await asyncio.to_thread(_read, *reading)
            model = deployment.find(name)  # it may have been replaced meanwhile
            heads = [head | {"model": model.key} for head in wanted.heads]
            replies = await asyncio.gather(*deployment.pool.submit(heads, wanted.bodies))
            rows = []
            for place, reply in enumerate(replies):
                if reply.head.get("failed"):
                    raise WorkerError(str(reply.head["failed"]))
                metrics.picture(model.name, reply.head)
                if error := reply.head.get("error"):
                    metrics.errors.labels("picture").inc()
                    raise _RefusedError(f"image[{place}] cannot be read: {error}")
                rows.append(np.frombuffer(reply.body, "<f4").reshape(reply.head["shape"]))
                if "features" in reply.head:
                    model.drift.add(reply.head["features"])
        except TaxonetError as error:
            return _refusal(error)
        return _written(model, wanted, np.concatenate(rows))


def _ready(deployment: Deployment) -> bool:
    return deployment.pool.workers_ready > 0 and not deployment.draining


async def _told(answer: Any) -> Response:
    try:
        found: Response = answer()
        return found
    except TaxonetError as error:
        return _refusal(error)


def _refusal(error: TaxonetError) -> Response:
    headers = {"retry-after": str(error.seconds)} if isinstance(error, QueueFullError) else {}
    known = ((QueueFullError, 503), (NoModelError, 404), (WorkerError, 500))
    status = next((status for kind, status in known if isinstance(error, kind)), 400)
    if isinstance(error, _RefusedError | ProblemError):
        status = error.status
    return Response(json.dumps({"error": str(error)}), status, headers, "application/json")


def _metadata(model: Served) -> dict[str, Any]:
    preprocessing = Preprocessing.parse(model.info.preprocessing)
    height, width = preprocessing.output_size
    classes = model.info.num_classes
    return {
        "name": model.name,
        "versions": [],
        "platform": f"taxonet_{model.engine}",
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, height, width, preprocessing.channels]},
        ],
        "outputs": [
            {"name": name, "datatype": kind, "shape": [-1, classes] if name == "probabilities" else [-1]}
            for name, kind in OUTPUTS.items()
        ],
    }


def _read(body: bytes, length: str | None, model: Served, max_files: int) -> Inference:
    if length is not None and not (
        length.isascii() and length.isdigit() and len(length) < 12 and int(length) <= len(body)
    ):
        raise _RefusedError(f"{LENGTH} is '{length[:20]}', it must be the bytes of the JSON before the binary data")
    split = len(body) if length is None else int(length)
    if body.count(b",", 0, split) > MAX_NUMBERS:
        raise _RefusedError(f"the JSON has more than {MAX_NUMBERS:,} numbers, send pixels as binary data", 413)
    try:
        document = json.loads(body[:split])
    except (ValueError, RecursionError):
        raise _RefusedError("the request is not JSON") from None
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _RefusedError("the request must have 'inputs' with one tensor, 'image' or 'pixels'")
    tensor = inputs[0]
    name = tensor.get("name")
    if name not in ("image", "pixels"):
        raise _RefusedError(f"there is no input '{str(name)[:100]}', it must be image or pixels")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not shape or not all(type(n) is int and 0 < n < 2**31 for n in shape):
        raise _RefusedError(f"the shape of {name} must be a list of whole numbers above 0")
    if shape[0] > max_files:
        raise _RefusedError(f"{name} has {shape[0]} pictures, at most {max_files} are taken at once", 413)
    raw = _binary(tensor, body[split:])
    if name == "image":
        bodies = _images(tensor, shape, raw)
        head: dict[str, Any] = {
            "kind": "picture",
            "path": None,
            "top": 1,
            "threshold": None,
            "preview": False,
            "full": True,
        }
    else:
        bodies = _pixels(tensor, shape, raw, model)
        head = {"kind": "pixels", "shape": [1, *shape[1:]]}
    identity = document.get("id")
    return Inference(identity if isinstance(identity, str) else None, [head] * len(bodies), bodies, _outputs(document))


def _binary(tensor: Mapping[str, Any], rest: bytes) -> bytes | None:
    """The tensor's bytes behind the JSON, None where its data stand in it."""
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        return None
    if type(size) is not int or size != len(rest):
        raise _RefusedError(f"binary_data_size is {str(size)[:20]}, and {len(rest)} bytes follow the JSON")
    return rest


def _kind(tensor: Mapping[str, Any], wanted: str) -> None:
    if tensor.get("datatype") != wanted:
        raise _RefusedError(f"the datatype of {tensor['name']} must be {wanted}")


def _images(tensor: Mapping[str, Any], shape: Sequence[int], raw: bytes | None) -> list[bytes]:
    _kind(tensor, "BYTES")
    if shape[1:] not in ([], [1]):
        raise _RefusedError("the shape of image must be [n] or [n, 1]")
    found = _elements(raw) if raw is not None else _base64(tensor.get("data"))
    if len(found) != shape[0]:
        raise _RefusedError(f"image has {len(found)} elements, its shape says {shape[0]}")
    return found


def _elements(raw: bytes) -> list[bytes]:
    """BYTES in binary: each behind its length."""
    found, place = [], 0
    while place < len(raw):
        end = place + _SIZE.size
        size = _SIZE.unpack(raw[place:end])[0] if end <= len(raw) else len(raw)
        if end + size > len(raw):
            raise _RefusedError("the binary data of image end within an element")
        found.append(raw[end : end + size])
        place = end + size
    return found


def _base64(data: Any) -> list[bytes]:
    flat = (
        [one for row in data for one in (row if isinstance(row, list) else [row])] if isinstance(data, list) else None
    )
    if flat is None or not all(isinstance(one, str) for one in flat):
        raise _RefusedError("the data of image must be a list of pictures in base64")
    try:
        return [base64.b64decode(one, validate=True) for one in flat]
    except (binascii.Error, ValueError):
        raise _RefusedError("the data of image must be base64; or send them as binary data") from None


def _pixels(tensor: Mapping[str, Any], shape: Sequence[int], raw: bytes | None, model: Served) -> list[bytes]:
    _kind(tensor, "UINT8")
    preprocessing = Preprocessing.parse(model.info.preprocessing)
    wanted = [*preprocessing.output_size, preprocessing.channels]
    if list(shape[1:]) != wanted:
        raise _RefusedError(f"the shape of pixels must be [n, {', '.join(map(str, wanted))}]")
    if raw is None:
        try:
            values = np.asarray(tensor.get("data"), np.float64)
            if values.size != int(np.prod(shape)) or not ((values >= 0) & (values <= 255) & (values % 1 == 0)).all():
                raise ValueError
        except (ValueError, TypeError, OverflowError):
            raise _RefusedError(f"the data of pixels must be {int(np.prod(shape))} numbers from 0 to 255") from None
        raw = values.astype(np.uint8).tobytes()
    each = int(np.prod(wanted))
    if len(raw) != each * shape[0]:
        raise _RefusedError(f"pixels has {len(raw)} bytes, its shape says {each * shape[0]}")
    return [raw[i : i + each] for i in range(0, len(raw), each)]


def _outputs(document: Mapping[str, Any]) -> dict[str, bool]:
    """The outputs that are asked for, and whether each is wanted in binary."""
    parameters, asked = document.get("parameters"), document.get("outputs")
    every = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    if not asked:
        return dict.fromkeys(OUTPUTS, every)
    if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
        raise _RefusedError("'outputs' must be a list of objects with a name")
    found = {}
    for one in asked:
        name, own = one.get("name"), one.get("parameters")
        if name not in OUTPUTS:
            raise _RefusedError(
                f"there is no output '{str(name)[:100]}', there are {', '.join(OUTPUTS)}{nearest(str(name), OUTPUTS)}"
            )
        found[name] = own.get("binary_data", every) is True if isinstance(own, dict) else every
    return found


def _written(model: Served, wanted: Inference, probabilities: NDArray[np.float32]) -> Response:
    index = probabilities.argmax(axis=1).astype("<i8")
    labels = [model.info.classes[i] for i in index]
    values: dict[str, Any] = {"probabilities": probabilities.astype("<f4"), "index": index, "label": labels}
    outputs, binary = [], []
    for name, raw in wanted.outputs.items():
        value = values[name]
        output: dict[str, Any] = {
            "name": name,
            "datatype": OUTPUTS[name],
            "shape": [len(value), *getattr(value, "shape", (0,))[1:]],
        }
        if raw:
            data = _packed(value) if name == "label" else value.tobytes()
            binary.append(data)
            output["parameters"] = {"binary_data_size": len(data)}
        else:
            output["data"] = value if name == "label" else value.ravel().tolist()
        outputs.append(output)
    document: dict[str, Any] = {"model_name": model.name, "model_version": "", "outputs": outputs}
    if wanted.identity is not None:
        document["id"] = wanted.identity
    text = json.dumps(document).encode()  # ASCII: the client's id may be no text
    if not binary:
        return Response(text, media_type="application/json")
    return Response(text + b"".join(binary), media_type="application/octet-stream", headers={LENGTH: str(len(text))})


def _packed(labels: Sequence[str]) -> bytes:
    return b"".join(_SIZE.pack(len(data)) + data for data in (label.encode() for label in labels))
