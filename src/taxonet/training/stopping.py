"""Early stopping on the validation loss. What was best, and whether it is over, follows from the run's log alone, so
that a resumed run decides as the uninterrupted one; the weights of the best epoch stand beside the checkpoint."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from taxonet.errors import DataError
from taxonet.files import make_folder, write_atomically
from taxonet.networks.layers import Network
from taxonet.processes import World

FILE = "last/best.safetensors"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, one an epoch; none where there is no log yet."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def best_epoch(log: list[dict[str, Any]]) -> int:
    """The epoch (from 1) with the lowest validation loss, the earlier one of two alike; 0 before the first."""
    return 1 + min(range(len(log)), key=lambda i: log[i]["val_loss"]) if log else 0


def is_over(log: list[dict[str, Any]], patience: int) -> bool:
    """Whether the validation loss has not fallen for `patience` epochs; never with a patience of 0."""
    return bool(patience and log) and len(log) - best_epoch(log) >= patience


def keep_best(run: Path, log: list[dict[str, Any]], network: Network) -> None:
    """Write the weights after the log's last epoch if it is the best so far."""
    if best_epoch(log) == len(log):
        make_folder((run / FILE).parent)
        state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
        write_atomically(run / FILE, save(state, {"epoch": str(len(log))}))


def load_best(run: Path, network: Network, world: World) -> None:
    """Put the weights of the best epoch into the network; the first process reads them.

    Raises:
        DataError: they cannot be read.
    """

    def read() -> bytes:
        try:
            return (run / FILE).read_bytes()
        except OSError as error:
            raise DataError(f"{run / FILE}, the weights of the best epoch, cannot be read: {error.strerror}") from error

    try:
        network.load_state_dict(load(world.from_first(read)), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise DataError(f"{run / FILE}, the weights of the best epoch, is damaged: {error}") from error
