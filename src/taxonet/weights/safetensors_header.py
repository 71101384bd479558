"""The header of a safetensors file, read and checked in full before a tensor is made: sizes, places, dtypes, text."""

import math
import os
import re
from collections.abc import Mapping
from io import BufferedReader
from typing import NamedTuple

from taxonet.errors import BundleError
from taxonet.weights.strict_json import MAX_INTEGER, MAX_TEXT, as_object, is_unicode, parse_object, short

Spec = tuple[str, tuple[int, ...]]
"""A tensor without its values: torch's name of the dtype (`float32`) and the shape."""

MAX_HEADER_BYTES = 16 * 2**20
MAX_DIMENSIONS = 8
MAX_DIMENSION = 2**31 - 1

DTYPES = {  # safetensors' name: torch's name, bytes per element
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
DTYPE_KEYS = {name: key for key, (name, _) in DTYPES.items()}


class TensorEntry(NamedTuple):
    """One tensor of a checked header; `begin` and `end` count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """A checked header: text, tensors, and where their data starts, in bytes from the file's beginning."""

    metadata: dict[str, str]
    entries: dict[str, TensorEntry]
    data_start: int

    @property
    def specs(self) -> dict[str, Spec]:
        """Dtype and shape of each tensor."""
        return {name: (entry.dtype, entry.shape) for name, entry in self.entries.items()}


def read_header(handle: BufferedReader) -> Header:
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
    fields = parse_object(text, "the header")
    metadata = _checked_metadata(fields.pop("__metadata__", {}))
    entries = {name: _checked_entry(name, entry) for name, entry in fields.items()}
    _check_layout(entries, size - 8 - length)
    return Header(metadata, entries, 8 + length)


def _checked_metadata(value: object) -> dict[str, str]:
    metadata = as_object(value, "__metadata__")
    for key, text in metadata.items():
        if not isinstance(text, str) or not is_unicode(text):
            raise BundleError(f"the metadata {short(key)} must be text, not {short(text)}")
    return metadata


def _checked_entry(name: str, value: object) -> TensorEntry:
    where = f"the tensor {short(name)}"
    if not name or len(name) > MAX_TEXT or not is_unicode(name):
        raise BundleError(f"{where} has a name that is empty, too long or not Unicode text")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise BundleError(f"{where} must have exactly 'dtype', 'shape' and 'data_offsets'")
    if not isinstance(value["dtype"], str) or value["dtype"] not in DTYPES:
        raise BundleError(f"{where} has the dtype {short(value['dtype'])}; known are {', '.join(DTYPES)}")
    shape = _sizes(value["shape"], f"the shape of {where}")
    offsets = _sizes(value["data_offsets"], f"the place of {where}", largest=MAX_INTEGER)
    dtype, width = DTYPES[value["dtype"]]
    if len(shape) > MAX_DIMENSIONS:
        raise BundleError(f"{where} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are allowed")
    if len(offsets) != 2:
        raise BundleError(f"the place of {where} must be two numbers")
    wanted = math.prod(shape) * width
    if offsets[1] - offsets[0] != wanted:
        raise BundleError(f"{where} needs {wanted} bytes by shape and dtype, and its place does not have them")
    return TensorEntry(dtype, shape, *offsets)


def _sizes(value: object, where: str, largest: int = MAX_DIMENSION) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise BundleError(f"{where} must be a list of integers, not {short(value)}")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= largest:
            raise BundleError(f"{where} holds {short(number)}; integers from 0 to {largest} are allowed")
    return tuple(value)


def _check_layout(entries: Mapping[str, TensorEntry], size: int) -> None:
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


HOW_TO_IMPORT = (
    "not a bundle; convert it with `taxonet import FILE --as NAME --out BUNDLE`, or train from it with --weights"
)
_PT2 = "a zip archive, not a bundle; a pt2 export is for torch.export.load; use the bundle it was made of"
_KINDS: tuple[tuple[bytes, str], ...] = (  # what a file begins with (a regular expression): what it is
    (rb"PK\x03\x04.{0,500}data\.pkl", f"a PyTorch pickle checkpoint, {HOW_TO_IMPORT}"),
    (rb"\x80[\x02-\x05]", f"a PyTorch pickle checkpoint, {HOW_TO_IMPORT}"),
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
