"""Exported models: a graph with the bundle's JSON inside, written in one step and read without torch.

`X.xml` + `X.bin` for OpenVINO (the JSON and a hash of the `.bin` are in the `.xml`), `X.onnx` for ONNX Runtime (the
JSON is in its metadata). Both take pixels (N, H, W, C) uint8 and give logits (N, classes).
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from taxonet.errors import BundleError, UsageError
from taxonet.files import replacing
from taxonet.images import Preprocessing
from taxonet.inference.engines.libraries import import_openvino
from taxonet.inference.engines.onnxruntime_engine import OnnxRuntimeEngine
from taxonet.inference.engines.openvino_engine import OpenVinoEngine
from taxonet.weights.bundle import BundleInfo, reading
from taxonet.weights.bundle_info import METADATA_KEY
from taxonet.weights.checkpoint_files import sha256_of

AnyPath = str | os.PathLike[str]
ENGINE_OF = {".xml": "openvino", ".onnx": "onnxruntime"}
INFO, HASH = "bundle", "bin_sha256"  # below the key `taxonet` of the runtime information


def is_artefact(model: AnyPath) -> bool:
    """Whether this names an exported model, by its ending."""
    return Path(model).suffix in ENGINE_OF


def open_artefact(path: AnyPath) -> tuple[BundleInfo, OpenVinoEngine | OnnxRuntimeEngine]:
    """What an exported model says of itself, and the engine that runs it.

    Raises:
        BundleError: the file is missing, cut, of another Taxonet's making, or its graph is not the one it describes.
        UsageError: its engine is not installed.
    """
    file = Path(path)
    if file.suffix == ".xml":
        info, model = read_openvino(file)
        return info, OpenVinoEngine(model)
    engine = OnnxRuntimeEngine(file)
    return read_onnx(engine), engine


def read_openvino(xml: AnyPath) -> tuple[BundleInfo, Any]:
    """What an OpenVINO export says, and its `openvino.Model`."""
    path = Path(xml)
    with _naming(path):
        with reading(path) as handle:
            if b"<net" not in handle.read(4096):
                raise BundleError("it is no OpenVINO model")
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise BundleError(f"its weights {weights.name} are missing")
        try:
            model = import_openvino().Core().read_model(path, weights)
        except RuntimeError as error:
            if (named := _named_hash(path)) and named != sha256_of(weights):
                raise BundleError(_FOREIGN.format(weights.name)) from error
            raise BundleError("it is damaged or not a whole OpenVINO model") from error
        info = _parsed(_runtime_text(model, INFO))
        if sha256_of(weights) != _runtime_text(model, HASH):
            raise BundleError(_FOREIGN.format(weights.name))
        shape = model.input(0).get_partial_shape()
        sizes = [shape[i].get_length() if shape[i].is_static else None for i in range(len(shape))]
        classes = model.output(0).get_partial_shape()[-1]
        _check(info, sizes, classes.get_length() if classes.is_static else None)
    return info, model


_FOREIGN = "{} is damaged or of another export; the two files belong together"


def _named_hash(xml: Path) -> str | None:
    """The hash of the weights that the text of an OpenVINO export names, also where the graph cannot be read."""
    found = re.search(rf'<{HASH} value="([0-9a-f]{{64}})"', xml.read_text("utf-8", "replace"))
    return found[1] if found else None


def read_onnx(engine: OnnxRuntimeEngine) -> BundleInfo:
    """What an ONNX export says."""
    file = Path(engine.path)
    with _naming(file):
        with reading(file):
            pass
        try:
            session = engine.session
        except UsageError:
            raise
        except Exception as error:  # ONNX Runtime has a class of its own for each failure
            raise BundleError("it is damaged or not a whole ONNX model") from error
        info = _parsed(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY))
        _check(info, session.get_inputs()[0].shape, session.get_outputs()[0].shape[-1])
    return info


def write_openvino(xml: AnyPath, model: Any, info: BundleInfo) -> None:
    """Write an `openvino.Model` as `X.xml` and `X.bin`; the weights stay as they are, nothing becomes float16.

    The pair appears whole: first the `.bin`, then the `.xml` that names its hash.
    """
    path = Path(xml)
    openvino = import_openvino()
    with (
        replacing(path) as new_xml,
        replacing(path.with_suffix(".bin")) as new_bin,
        TemporaryDirectory(prefix=".taxonet-", dir=new_xml.parent) as folder,
    ):
        draft = Path(folder) / "model.xml"
        weights = draft.with_suffix(".bin")
        model.set_rt_info(info.to_json(), [METADATA_KEY, INFO])
        for known in ("", None):  # once to learn the hash, once with it inside
            model.set_rt_info(sha256_of(weights) if known is None else known, [METADATA_KEY, HASH])
            openvino.save_model(model, draft, compress_to_fp16=False)
        draft.replace(new_xml)
        weights.replace(new_bin)


def write_onnx(path: AnyPath, program: Any, info: BundleInfo) -> None:
    """Write a `torch.onnx.ONNXProgram` as one file."""
    program.model.metadata_props[METADATA_KEY] = info.to_json()
    program.model.producer_name = "taxonet"
    with replacing(path) as temporary:
        program.save(str(temporary), external_data=False)


def _runtime_text(model: Any, key: str) -> str | None:
    return str(model.get_rt_info([METADATA_KEY, key]).value) if model.has_rt_info([METADATA_KEY, key]) else None


def _parsed(text: str | None) -> BundleInfo:
    if text is None:
        raise BundleError("it carries no classes and preprocessing of Taxonet; `taxonet export` writes such files")
    info = BundleInfo.from_json(text)
    try:
        Preprocessing.parse(info.preprocessing)
    except UsageError as error:
        raise BundleError(str(error)) from error
    return info


def _check(info: BundleInfo, shape: list[Any], outputs: Any) -> None:
    """The graph must take what the preprocessing gives and answer for the classes that are named."""
    preprocessing = Preprocessing.parse(info.preprocessing)
    wanted = [*preprocessing.output_size, preprocessing.channels]
    if list(shape[1:]) != wanted:
        raise BundleError(f"its graph takes pictures of shape {list(shape[1:])}, its preprocessing gives {wanted}")
    if outputs != info.num_classes:
        raise BundleError(f"its graph has {outputs} outputs, and it names {info.num_classes} classes")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with it."""
    try:
        yield
    except BundleError as error:
        text = str(error)
        raise BundleError(text if text.startswith("cannot read '") else f"cannot read '{path}': {text}") from error
