"""The bundle: one `.safetensors` file with the weights and all that is needed to use them (docs/bundle.md).

A bundle may come from a stranger, so the header is checked in full before a tensor is made: whatever the bytes are,
reading gives a result or a BundleError of one sentence. Only `read_tensors` and `save_bundle` load torch.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxonet.errors import BundleError, nearest, nearest_file
from taxonet.files import replacing
from taxonet.weights.bundle_info import METADATA_KEY, BundleInfo
from taxonet.weights.safetensors_header import DTYPE_KEYS, HOW_TO_IMPORT, Header, Spec, TensorEntry, read_header
from taxonet.weights.strict_json import is_unicode, short

if TYPE_CHECKING:
    import torch

__all__ = [
    "AnyPath",
    "BundleInfo",
    "Spec",
    "check_state",
    "read_info",
    "read_tensors",
    "reading",
    "save_bundle",
    "specs_of",
    "tensor_specs",
]

AnyPath = str | os.PathLike[str]


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
            raise BundleError(f"there is no such file{nearest_file(file)}")
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


def _info_of(header: Header) -> BundleInfo:
    if METADATA_KEY not in header.metadata:
        raise BundleError(
            f"it is a safetensors file without the key '{METADATA_KEY}', so only weights, {HOW_TO_IMPORT}"
        )
    for key in header.metadata:
        if key != METADATA_KEY:
            raise BundleError(f"unknown metadata {short(key)} beside '{METADATA_KEY}'")
    return BundleInfo.from_json(header.metadata[METADATA_KEY])


def _read_tensor(handle: BufferedReader, name: str, entry: TensorEntry, data_start: int) -> "torch.Tensor":
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

    if not isinstance(name, str) or name in ("", "__metadata__") or not is_unicode(name):
        raise BundleError(f"{short(name)} cannot be the name of a tensor")
    if not isinstance(value, torch.Tensor):
        raise BundleError(f"{short(name)} is {short(value)}, not a tensor")
    if str(value.dtype).removeprefix("torch.") not in DTYPE_KEYS:
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
        header[name] = {"dtype": DTYPE_KEYS[dtype], "shape": shape, "data_offsets": place}
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with file.open("wb") as handle:
        handle.write(len(raw).to_bytes(8, "little") + raw)
        for name in order:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            handle.write(flat.view(torch.uint8).numpy().data)
