"""The bundle: one `.safetensors` file with the weights and all that is needed to use them (docs/bundle.md).

A bundle may come from a stranger, so the header is checked here in full before a tensor is made: whatever the
bytes are, reading gives a result or a BundleError of one sentence. Only `read_tensors` and `save_bundle` load
torch.
"""

import json
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BufferedReader
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn

from taxonet.errors import BundleError, nearest
from taxonet.files import replacing

if TYPE_CHECKING:
    import torch

AnyPath = str | os.PathLike[str]
Spec = tuple[str, tuple[int, ...]]
"""A tensor without its values: torch's name of the dtype (`float32`) and the shape."""

METADATA_KEY = "taxonet"
MAX_HEADER_BYTES = 16 * 2**20
MAX_TEXT = 4096
MAX_CLASS_NAME = 1000
MAX_DEPTH = 12
MAX_INTEGER = 2**63 - 1
MAX_DIMENSIONS = 8
MAX_DIMENSION = 2**31 - 1

_KEYS = (
    "schema",
    "model",
    "classes",
    "preprocessing",
    "calibration",
    "metrics",
    "licence",
    "provenance",
    "created",
)
_RESERVED_OPTIONS = ("name", "num_classes")
_DTYPES = {  # safetensors' name: torch's name, bytes per element
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
_NAMES = {name: key for key, (name, _) in _DTYPES.items()}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- the information ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BundleInfo:
    """What a bundle says about its weights; every instance is valid, an invalid one raises BundleError.

    `options` are the keyword arguments of `create_model` without `num_classes`, which follows from `classes`.
    `threshold` is the probability under which a prediction counts as unsure, or None. `metrics` and
    `provenance` are free JSON objects. Tuples become lists, as JSON has no others.
    """

    schema: ClassVar[int] = 1

    variant: str
    classes: tuple[str, ...]
    preprocessing: str
    options: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    threshold: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=_now)

    def __post_init__(self) -> None:
        _check_text(self.variant, "model.variant")
        _check_text(self.preprocessing, "preprocessing")
        if self.licence is not None:
            _check_text(self.licence, "licence")
        _check_created(self.created)
        plain = {
            "classes": _checked_classes(self.classes),
            "options": _checked_options(self.options),
            "temperature": _checked_temperature(self.temperature),
            "threshold": _checked_threshold(self.threshold),
            "metrics": _plain_object(self.metrics, "metrics"),
            "provenance": _plain_object(self.provenance, "provenance"),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)  # the way to normalise a field of a frozen dataclass

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """The number of input channels: the option of that name, else 3."""
        return int(self.options.get("in_channels", 3))

    @property
    def create_options(self) -> dict[str, Any]:
        """The keyword arguments of `create_model(variant, ...)` that build the network of these weights."""
        return {"num_classes": self.num_classes, **self.options}

    def to_json(self) -> str:
        """The text that stands under the key `taxonet`; equal information gives equal text."""
        fields = {
            "schema": self.schema,
            "model": {"variant": self.variant, "options": self.options},
            "classes": self.classes,
            "preprocessing": self.preprocessing,
            "calibration": {"temperature": self.temperature, "threshold": self.threshold},
            "metrics": self.metrics,
            "licence": self.licence,
            "provenance": self.provenance,
            "created": self.created,
        }
        return json.dumps(fields, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "BundleInfo":
        """Read what `to_json` wrote; raises BundleError for anything else, a newer schema included."""
        fields = _parse_object(text, f"the value of '{METADATA_KEY}'")
        _check_schema(fields)
        _check_keys(fields, _KEYS, "")
        model = _object(fields["model"], "model")
        _check_keys(model, ("variant", "options"), "model.")
        calibration = _object(fields["calibration"], "calibration")
        _check_keys(calibration, ("temperature", "threshold"), "calibration.")
        return cls(
            variant=model["variant"],
            options=model["options"],
            temperature=calibration["temperature"],
            threshold=calibration["threshold"],
            **{key: fields[key] for key in _KEYS if key not in ("schema", "model", "calibration")},
        )


def _check_schema(fields: Mapping[str, Any]) -> None:
    schema = fields.get("schema")
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise BundleError(f"'schema' must be a positive integer, not {short(schema)}")
    if schema > BundleInfo.schema:
        raise BundleError(f"written by a newer Taxonet (schema {schema}; this one reads {BundleInfo.schema})")


def _check_keys(fields: Mapping[str, Any], known: tuple[str, ...], prefix: str) -> None:
    for key in fields:
        if key not in known:
            raise BundleError(f"unknown key {short(prefix + key)}{nearest(key[:100], known)}")
    for key in known:
        if key not in fields:
            raise BundleError(f"the key '{prefix}{key}' is missing")


def _check_text(value: object, where: str, limit: int = MAX_TEXT) -> None:
    if not isinstance(value, str):
        raise BundleError(f"'{where}' must be text, not {short(value)}")
    if not value.strip():
        raise BundleError(f"'{where}' must not be empty")
    if len(value) > limit:
        raise BundleError(f"'{where}' has {len(value)} characters; at most {limit} are allowed")
    # control characters could steer a terminal, lone surrogates cannot be written
    if any(unicodedata.category(ch) in ("Cc", "Cs", "Zl", "Zp") for ch in value):
        raise BundleError(f"'{where}' holds a line break or control character: {short(value)}")


def _check_created(value: object) -> None:
    _check_text(value, "created")
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() != timedelta(0):
        raise BundleError(f"'created' must be a UTC time such as 2026-11-23T09:30:00Z, not {short(value)}")


def _checked_classes(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise BundleError(f"'classes' must be a list of at least one name, not {short(value)}")
    seen: dict[str, int] = {}
    for index, name in enumerate(value):
        _check_text(name, f"classes[{index}]", MAX_CLASS_NAME)
        if name in seen:
            raise BundleError(f"'classes' holds {short(name)} twice, at {seen[name]} and {index}")
        seen[name] = index
    return tuple(seen)


def _checked_options(value: object) -> dict[str, Any]:
    options = _plain_object(value, "model.options")
    for key, option in options.items():
        where = f"model.options.{key[:100]}"
        if not key.isidentifier():
            raise BundleError(f"the option {short(key)} is not a name")
        if key in _RESERVED_OPTIONS:
            raise BundleError(f"'{where}' must be left out: it follows from 'classes' and 'model.variant'")
        parts = option if isinstance(option, list) else [option]
        if any(isinstance(part, (list, dict)) for part in parts):
            raise BundleError(f"'{where}' must be a number, text, true, false, null or a flat list of these")
    channels = options.get("in_channels", 3)
    if isinstance(channels, bool) or not isinstance(channels, int) or not 1 <= channels <= 4096:
        raise BundleError(f"'model.options.in_channels' must be an integer from 1, not {short(channels)}")
    return options


def _checked_temperature(value: object) -> float:
    number = _finite(value, "calibration.temperature")
    if number <= 0:
        raise BundleError(f"'calibration.temperature' must be above 0, not {number}")
    return number


def _checked_threshold(value: object) -> float | None:
    if value is None:
        return None
    number = _finite(value, "calibration.threshold")
    if not 0 <= number <= 1:
        raise BundleError(f"'calibration.threshold' must be null or a probability from 0 to 1, not {number}")
    return number


def _finite(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BundleError(f"'{where}' must be a number, not {short(value)}")
    if not abs(value) <= MAX_INTEGER:  # false for NaN too
        raise BundleError(f"'{where}' must be a finite number of usual size, not {short(value)}")
    return float(value)


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise BundleError(f"'{where}' must be an object of names and values, not {short(value)}")
    for key in value:
        if not isinstance(key, str) or not _is_unicode(key):
            raise BundleError(f"'{where}' has the key {short(key)}, which is not text")
    return dict(value)


def _plain_object(value: object, where: str) -> dict[str, Any]:
    return {key: _plain(part, f"{where}.{key[:100]}", 2) for key, part in _object(value, where).items()}


def _plain(value: object, where: str, depth: int) -> Any:
    """A copy of `value` made of what JSON knows; raises BundleError when it holds something else."""
    if depth > MAX_DEPTH:
        raise BundleError(f"{short(where)} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        parts = _object(value, where).items()
        return {key: _plain(part, f"{where}.{key[:100]}", depth + 1) for key, part in parts}
    if isinstance(value, (list, tuple)):
        return [_plain(part, f"{where}[{index}]", depth + 1) for index, part in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if not _is_unicode(value):
            raise BundleError(f"{short(where)} is not valid Unicode text")
        return value
    if isinstance(value, int) and abs(value) <= MAX_INTEGER:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    raise BundleError(f"{short(where)} cannot be stored: {short(value)} is not a finite JSON value")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= ch <= "\udfff" for ch in text)


def short(value: object, limit: int = 60) -> str:
    """A value on one printable line, cut to a readable length, for an error sentence."""
    if isinstance(value, (Mapping, list, tuple)):
        return f"a {'list' if isinstance(value, (list, tuple)) else 'mapping'} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_INTEGER:
        return "a number beyond 64 bits"
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if not isinstance(value, str):
        return f"a {type(value).__name__}"
    return repr(value if len(value) <= limit else value[:limit] + "…")


# --- the header --------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    """One tensor of a checked header; `begin` and `end` count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class _Header(NamedTuple):
    metadata: dict[str, str]
    entries: dict[str, _Entry]
    data_start: int

    @property
    def specs(self) -> dict[str, Spec]:
        return {name: (entry.dtype, entry.shape) for name, entry in self.entries.items()}


def read_header(handle: BufferedReader) -> _Header:
    """Read and check all that stands before the tensor data; raises BundleError."""
    size = os.fstat(handle.fileno()).st_size
    head = handle.read(MAX_TEXT)
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or length > MAX_HEADER_BYTES:
        raise BundleError(f"it is {_kind(head)}")
    if length > size - 8:
        raise BundleError(f"it is truncated: the header should take {length} bytes, and {size - 8} are there")
    handle.seek(8)
    raw = handle.read(length)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise BundleError("the header is not UTF-8 text") from error
    fields = _parse_object(text, "the header")
    metadata = _checked_metadata(fields.pop("__metadata__", {}))
    entries = {name: _checked_entry(name, entry) for name, entry in fields.items()}
    _check_layout(entries, size - 8 - length)
    return _Header(metadata, entries, 8 + length)


def _parse_object(text: str, where: str) -> dict[str, Any]:
    """Parse a JSON object more strictly than `json`: no duplicate keys, no NaN or Infinity; BundleError."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise BundleError(f"{where} is nested too deeply") from error
    except ValueError as error:  # a syntax error, or an integer of thousands of digits
        raise BundleError(f"{where} is not valid JSON") from error
    if not isinstance(value, dict):
        raise BundleError(f"{where} must be a JSON object, not {short(value)}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise BundleError(f"the key {short(key)} stands twice in one JSON object")
        fields[key] = value
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise BundleError(f"the number {name} is not JSON")


def _checked_metadata(value: object) -> dict[str, str]:
    metadata = _object(value, "__metadata__")
    for key, text in metadata.items():
        if not isinstance(text, str) or not _is_unicode(text):
            raise BundleError(f"the metadata {short(key)} must be text, not {short(text)}")
    return metadata


def _checked_entry(name: str, value: object) -> _Entry:
    where = f"the tensor {short(name)}"
    if not name or len(name) > MAX_TEXT or not _is_unicode(name):
        raise BundleError(f"{where} has a name that is empty, too long or not Unicode text")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise BundleError(f"{where} must have exactly 'dtype', 'shape' and 'data_offsets'")
    if not isinstance(value["dtype"], str) or value["dtype"] not in _DTYPES:
        raise BundleError(f"{where} has the dtype {short(value['dtype'])}; known are {', '.join(_DTYPES)}")
    shape = _sizes(value["shape"], f"the shape of {where}")
    offsets = _sizes(value["data_offsets"], f"the place of {where}", largest=MAX_INTEGER)
    dtype, width = _DTYPES[value["dtype"]]
    if len(shape) > MAX_DIMENSIONS:
        raise BundleError(f"{where} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are allowed")
    if len(offsets) != 2:
        raise BundleError(f"the place of {where} must be two numbers")
    wanted = math.prod(shape) * width
    if offsets[1] - offsets[0] != wanted:
        raise BundleError(f"{where} needs {wanted} bytes by shape and dtype, and its place does not have them")
    return _Entry(dtype, shape, *offsets)


def _sizes(value: object, where: str, largest: int = MAX_DIMENSION) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise BundleError(f"{where} must be a list of integers, not {short(value)}")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= largest:
            raise BundleError(f"{where} holds {short(number)}; integers from 0 to {largest} are allowed")
    return tuple(value)


def _check_layout(entries: Mapping[str, _Entry], size: int) -> None:
    """The tensors must fill the `size` bytes after the header, in any order, without overlap or hole."""
    end, previous = 0, ""
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.begin < end:
            raise BundleError(f"the tensors {short(previous)} and {short(name)} overlap in the file")
        if entry.begin > end:
            raise BundleError(f"there are unused bytes before the tensor {short(name)}")
        end, previous = entry.end, name
    if end > size:
        raise BundleError(f"it is truncated: the tensors should take {end} bytes, and {size} are there")
    if end < size:
        raise BundleError(f"it has {size - end} bytes after the last tensor")


_IMPORT = "not a bundle; convert it with `taxonet import FILE --as NAME --out BUNDLE`, or train from it with --weights"
_PT2 = "a zip archive, not a bundle; a pt2 export is for torch.export.load; use the bundle it was made of"
_KINDS: tuple[tuple[bytes, str], ...] = (  # what a file begins with (a regular expression): what it is
    (rb"PK\x03\x04.{0,500}data\.pkl", f"a PyTorch pickle checkpoint, {_IMPORT}"),
    (rb"\x80[\x02-\x05]", f"a PyTorch pickle checkpoint, {_IMPORT}"),
    (rb"PK\x03\x04.{0,500}archive_format|PK\x03\x04.{0,120}/data/weights/", _PT2),
    (rb"PK\x03\x04", "a zip archive, not a bundle"),
    (
        rb"\s*<\?xml|\s*<net ",
        "an XML file, not a bundle; an OpenVINO export is opened by its name ending in .xml",
    ),
    (
        rb"\x08[\x01-\x20][\x12\x1a\x22\x3a\x42]",
        "an ONNX file, not a bundle; it is opened by its name ending in .onnx",
    ),
    (rb"(?i)\s*<(!doctype )?html", "a web page, not a bundle; the download went wrong"),
    (
        rb"version https://git-lfs",
        "a Git LFS pointer, not a bundle; fetch the file itself with `git lfs pull`",
    ),
    (rb"\x89HDF", "an HDF5 file, not a bundle"),
    (rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP", "a photo, not a bundle"),
)


def _kind(head: bytes) -> str:
    """Say what a file that is no safetensors file is, from its first bytes."""
    if not head:
        return "empty"
    for pattern, kind in _KINDS:
        if re.match(pattern, head, re.DOTALL):
            return kind
    if head[8:9] == b"{" and 0 in head[:8]:
        length = int.from_bytes(head[:8], "little")
        return f"a file whose header of {length} bytes is over the limit of {MAX_HEADER_BYTES}"
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return "a text file, not a file of weights"
    return "not a safetensors file, so not a bundle"


# --- reading -----------------------------------------------------------------------------------------------


@contextmanager
def reading(path: AnyPath) -> Iterator[BufferedReader]:
    """Open a file for the block; what goes wrong becomes a BundleError that names `path`."""
    file = Path(path)
    try:
        if file.is_dir():
            inside = file / "model.safetensors"
            hint = f"; did you mean '{inside}'?" if inside.is_file() else ""
            raise BundleError(f"it is a folder, not a file{hint}")
        if not file.exists():
            raise BundleError("there is no such file")
        if not file.is_file():
            raise BundleError("it is not a regular file")
        with file.open("rb") as handle:
            yield handle
    except BundleError as error:
        raise BundleError(f"cannot read '{path}': {error}") from error
    except OSError as error:
        raise BundleError(f"cannot read '{path}': {error.strerror or error}") from error


def read_info(path: AnyPath) -> BundleInfo:
    """Read what a bundle says about its weights, without reading them; raises BundleError."""
    with reading(path) as handle:
        return _info_of(read_header(handle))


def tensor_specs(path: AnyPath) -> dict[str, Spec]:
    """Read dtype and shape of each tensor of a safetensors file from its header; raises BundleError."""
    with reading(path) as handle:
        return read_header(handle).specs


def read_tensors(path: AnyPath) -> dict[str, "torch.Tensor"]:
    """Read the tensors of a safetensors file, in the order of its header, to the CPU; raises BundleError.

    Each tensor owns its memory, so the file may be replaced or cut afterwards.
    """
    with reading(path) as handle:
        header = read_header(handle)
        return {name: _read_tensor(handle, name, entry, header.data_start) for name, entry in header.entries.items()}


def _info_of(header: _Header) -> BundleInfo:
    if METADATA_KEY not in header.metadata:
        raise BundleError(f"it is a safetensors file without the key '{METADATA_KEY}', so only weights, {_IMPORT}")
    for key in header.metadata:
        if key != METADATA_KEY:
            raise BundleError(f"unknown metadata {short(key)} beside '{METADATA_KEY}'")
    return BundleInfo.from_json(header.metadata[METADATA_KEY])


def _read_tensor(handle: BufferedReader, name: str, entry: _Entry, data_start: int) -> "torch.Tensor":
    import torch

    dtype: torch.dtype = getattr(torch, entry.dtype)
    if entry.begin == entry.end:
        return torch.empty(entry.shape, dtype=dtype)
    buffer = bytearray(entry.end - entry.begin)
    handle.seek(data_start + entry.begin)
    if handle.readinto(buffer) != len(buffer):
        raise BundleError(f"it became shorter while the tensor {short(name)} was read")
    if dtype is torch.bool:  # other bytes than 0 and 1 are undefined in torch
        return torch.frombuffer(buffer, dtype=torch.uint8).ne(0).reshape(entry.shape)
    return torch.frombuffer(buffer, dtype=dtype).reshape(entry.shape)


# --- checking and writing ----------------------------------------------------------------------------------


def specs_of(state_dict: Mapping[str, "torch.Tensor"]) -> dict[str, Spec]:
    """Dtype and shape of each tensor of a network's `state_dict()`, as `check_state` expects them."""
    return {name: (str(value.dtype).removeprefix("torch."), tuple(value.shape)) for name, value in state_dict.items()}


def check_state(specs: Mapping[str, Spec], expected: Mapping[str, Spec]) -> None:
    """Raise BundleError when tensors that are there (`specs`) are not those a network needs (`expected`).

    The sentence names the first tensor that is missing, too much, of the wrong shape or dtype, in this order
    of the four, and counts the others of its sort.
    """
    missing = [name for name in expected if name not in specs]
    if missing:
        hint = nearest(missing[0], islice((name for name in specs if name not in expected), 1000))
        raise BundleError(f"the tensor {short(missing[0])} is missing{_more(missing)}{hint}")
    unexpected = [name for name in specs if name not in expected]
    if unexpected:
        raise BundleError(f"the tensor {short(unexpected[0])} has no place in the network{_more(unexpected)}")
    for index, what in ((1, "shape"), (0, "dtype")):
        wrong = [name for name in expected if specs[name][index] != expected[name][index]]
        if wrong:
            is_, must = specs[wrong[0]][index], expected[wrong[0]][index]
            raise BundleError(
                f"the tensor {short(wrong[0])} has the {what} {is_}, and the network has {must}{_more(wrong)}"
            )


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def save_bundle(path: AnyPath, info: BundleInfo, state_dict: Mapping[str, "torch.Tensor"]) -> None:
    """Write a bundle in one step: a reader of `path` finds the old file or the new one, never half of it.

    The same input gives the same bytes. Tensors that share memory are each stored in full.
    Raises BundleError when the tensors cannot be stored, UsageError or DataError when the file cannot be
    written; an existing file then stays as it was.
    """
    try:
        if not state_dict:
            raise BundleError("there is no tensor to store")
        for name, value in state_dict.items():
            _check_storable(name, value)
        with replacing(path) as temporary:
            _write(temporary, {METADATA_KEY: info.to_json()}, state_dict)
            with temporary.open("rb") as handle:  # what would be refused must not take the place of a bundle
                if _info_of(read_header(handle)) != info:
                    raise BundleError("the information does not survive writing")
    except BundleError as error:
        raise BundleError(f"cannot write '{path}': {error}") from error


def _check_storable(name: object, value: object) -> None:
    import torch

    if not isinstance(name, str) or name in ("", "__metadata__") or not _is_unicode(name):
        raise BundleError(f"{short(name)} cannot be the name of a tensor")
    if not isinstance(value, torch.Tensor):
        raise BundleError(f"{short(name)} is {short(value)}, not a tensor")
    if str(value.dtype).removeprefix("torch.") not in _NAMES:
        raise BundleError(f"the tensor {short(name)} has the dtype {value.dtype}, which a bundle cannot hold")
    if value.layout != torch.strided or value.is_meta:
        raise BundleError(f"the tensor {short(name)} is not a dense tensor with values")


def _write(file: Path, metadata: Mapping[str, str], tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Write safetensors one tensor at a time, so that saving a model needs no second copy of it."""
    import torch

    order = sorted(tensors, key=lambda name: -tensors[name].element_size())  # keeps every tensor aligned
    ends = dict(zip(order, accumulate(tensors[name].nbytes for name in order), strict=True))
    header: dict[str, Any] = {"__metadata__": metadata}
    for name, (dtype, shape) in specs_of(tensors).items():
        place = [ends[name] - tensors[name].nbytes, ends[name]]
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": place}
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with file.open("wb") as handle:
        handle.write(len(raw).to_bytes(8, "little") + raw)
        for name in order:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            handle.write(flat.view(torch.uint8).numpy().data)
