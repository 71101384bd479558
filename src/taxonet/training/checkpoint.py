"""The checkpoints of a run: files written whole or not at all, read back before they count, without pickle.

`last/` holds the newest few, named by the steps that the run had made. Each carries a hash of all it holds: one that
the disk has damaged is found out, named, and the one before it is used.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from taxonet.errors import DataError
from taxonet.files import make_folder, replacing

FOLDER = "last"
KEPT = 2  # checkpoints that a run keeps
META, HASH = "taxonet_checkpoint", "sha256"


@dataclass
class Position:
    """How far a run is: epochs that are complete, steps done in the next one, and that epoch's sums so far."""

    epoch: int = 0
    step: int = 0
    steps_in_all: int = 0
    loss_sum: float = 0.0
    right: int = 0
    seen: int = 0
    seconds: float = 0.0
    splits: int = 1  # into so many parts each batch is divided since memory ran out
    used: float = 0.0  # seconds of a budget, on the way to here
    cuts: list[list[int]] = field(default_factory=list)  # (step, last step from then on): `training/deadline.py`


class _DamagedError(Exception):
    """A file that is no checkpoint, or not the one that was written."""


def save_checkpoint(
    run: Path,
    position: Position,
    networks: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    key: str,
    keep: int = KEPT,
) -> Path:
    """Write a checkpoint, read it back, and only then drop all but the newest `keep`; returns its path.

    `key` names the recipe and data that it belongs to.

    Raises:
        DataError: it cannot be written, or the disk gives back other bytes; the older checkpoints are all there.
    """
    tensors: dict[str, Tensor] = {}
    for prefix, network in networks.items():
        tensors |= {f"{prefix}/{name}": value for name, value in network.state_dict().items()}
    numbers: dict[str, float] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            elif value is not None:
                numbers[f"{index}/{name}"] = value
    meta = json.dumps({"position": asdict(position), "optimizer": numbers, "key": key})
    dense = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    path = run / FOLDER / f"checkpoint-{position.steps_in_all:08d}.safetensors"
    make_folder(path.parent)
    _write_verified(path, save(dense, {META: meta, HASH: _digest(dense, meta)}))
    found = checkpoints(run)
    place = found.index(path)  # what is newer was damaged, else the run would have gone on from there
    for old in (*found[:place], *found[place + keep :]):
        old.unlink(missing_ok=True)
    return path


def checkpoints(run: Path) -> list[Path]:
    """The run's checkpoints, the newest first."""
    return sorted((run / FOLDER).glob("checkpoint-*.safetensors"), reverse=True)


def read_newest(run: Path, key: str, say: Callable[[str], None] = lambda _: None) -> bytes:
    """The bytes of the newest checkpoint that is whole, empty where there is none.

    A damaged checkpoint is named to `say`, and the one before it is used.

    Raises:
        DataError: no checkpoint can be read, or it belongs to another recipe or other data.
    """
    for leftover in (run / FOLDER).glob(".checkpoint-*.tmp"):  # of a writer that was killed
        leftover.unlink(missing_ok=True)
    found = checkpoints(run)
    reasons = []
    for path in found:
        try:
            data = path.read_bytes()
            meta, _ = _unpack(data)
        except (_DamagedError, OSError) as error:
            reasons.append(f"{path} is damaged ({error})")
            continue
        if meta["key"] != key:
            raise DataError(f"{path} belongs to another recipe, teacher or release of Taxonet; begin another run")
        for reason in reasons:
            say(f"{reason}; the checkpoint before it is used")
        return data
    if found:
        more = f" and none of the {len(found)} can be read" if len(found) > 1 else ""
        raise DataError(f"{reasons[0]}{more}; without the folder {run / FOLDER} the run begins again with --resume")
    return b""


def apply_checkpoint(data: bytes, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> Position:
    """Bring networks and optimiser to the state in a checkpoint's bytes; returns the run's position in it."""
    meta, tensors = _unpack(data)
    for prefix, network in networks.items():
        state = {n.removeprefix(f"{prefix}/"): t for n, t in tensors.items() if n.startswith(f"{prefix}/")}
        network.load_state_dict(state, strict=True)
    _restore(optimizer, tensors, meta["optimizer"])
    return Position(**meta["position"])


def _write_verified(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            with suppress(AttributeError, OSError):  # read from the disk, not from what memory remembers of it
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with temporary.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").digest()
        if found != hashlib.sha256(data).digest():
            raise DataError(f"the disk gave back other bytes than were written to {path}; the older checkpoint is kept")


def _digest(tensors: Mapping[str, Tensor], meta: str) -> str:
    """A hash of everything in a checkpoint: names, types, shapes, values and `meta`."""
    digest = hashlib.sha256(meta.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _unpack(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])["__metadata__"]
        tensors = load(data)
        if _digest(tensors, header[META]) != header[HASH]:
            raise _DamagedError("its content is not what was written")
        meta: dict[str, Any] = json.loads(header[META])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _DamagedError("it is no checkpoint, or cut off") from error
    return meta, tensors


def _restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    states: dict[int, dict[str, Any]] = {}
    flat = {name.removeprefix("optimizer/"): t for name, t in tensors.items() if name.startswith("optimizer/")}
    for name, value in (*flat.items(), *numbers.items()):
        index, _, key = name.partition("/")
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
