"""The checkpoint of a run: one file, written whole or not at all, without pickle."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from taxonet.errors import DataError
from taxonet.files import remove_leftovers, write_atomically

FILE = "last/checkpoint.safetensors"


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


def save_checkpoint(
    run: Path, position: Position, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, key: str
) -> None:
    """Write the run's checkpoint; `key` names the recipe and data that it belongs to."""
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
    meta = {"position": asdict(position), "optimizer": numbers, "key": key}
    dense = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    path = run / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(dense, {"taxonet_checkpoint": json.dumps(meta)}))


def load_checkpoint(
    run: Path, networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, key: str
) -> Position | None:
    """Bring networks and optimiser to where the run stopped; None if it stopped before its first checkpoint.

    Raises:
        DataError: the checkpoint cannot be read, or belongs to another recipe or other data.
    """
    path = run / FILE
    remove_leftovers(path)  # of a writer that was killed
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {})["taxonet_checkpoint"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path} is not a checkpoint of Taxonet ({error}); start again without --resume") from error
    if meta["key"] != key:
        raise DataError(f"{path} belongs to another recipe, model or data; start a new run or give the same arguments")
    for prefix, network in networks.items():
        state = {n.removeprefix(f"{prefix}/"): t for n, t in tensors.items() if n.startswith(f"{prefix}/")}
        network.load_state_dict(state, strict=True)
    _restore(optimizer, tensors, meta["optimizer"])
    return Position(**meta["position"])


def _restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    states: dict[int, dict[str, Any]] = {}
    flat = {name.removeprefix("optimizer/"): t for name, t in tensors.items() if name.startswith("optimizer/")}
    for name, value in (*flat.items(), *numbers.items()):
        index, _, key = name.partition("/")
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
