"""What happens when a batch does not fit into memory: it is halved, and as many gradients more are added up."""

from pathlib import Path

import torch
from torch import Tensor

from taxonet.errors import TrainingError
from taxonet.files import make_folder, write_atomically
from taxonet.networks.layers import Network, batch_norms
from taxonet.networks.memory import free_cached_memory
from taxonet.processes import World
from taxonet.training.checkpoint import FOLDER
from taxonet.training.feed import Batch

SPLITS = "splits"  # a file beside the checkpoints: into how many pieces a process that ran out of memory divides


def found_splits(run: Path, world: World) -> int:
    """Into how many pieces a batch is to be divided since memory ran out in one of several processes."""
    try:
        own = int((run / FOLDER / SPLITS).read_text())
    except (OSError, ValueError):
        own = 1
    return max(int(text) for text in world.gather(str(own).encode()))


class NormStatistics:
    """The running statistics of a network's batch norms, to take a failed forward pass back."""

    def __init__(self, network: Network) -> None:
        norms = [norm for norm in batch_norms(network) if norm.training]
        buffers = [buffer for norm in norms for buffer in norm.buffers()]
        self._saved: list[tuple[Tensor, Tensor]] = [(buffer, buffer.clone()) for buffer in buffers]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the statistics back."""
        for buffer, saved in self._saved:
            buffer.copy_(saved)


def smallest_part(network: Network, statistics: bool = True) -> int:
    """The fewest pictures of a forward pass: batch norm that takes `statistics` needs two to know a deviation."""
    return 2 if statistics and batch_norms(network) else 1


def halved(network: Network, batch: Batch, splits: int, world: World, run: Path) -> str:
    """The sentence about a batch whose parts are divided into `splits` pieces from now on.

    Other processes wait for this one in the midst of a pass, so with several the run ends, and goes on with the pieces.

    Raises:
        TrainingError: a piece would be too small, or there are several processes.
    """
    parts, least = splits * len(batch.parts), smallest_part(network, any(n.training for n in batch_norms(network)))
    before, size = -(-2 * len(batch.own) // parts), -(-len(batch.own) // parts)
    height, width = batch.size
    where = f" in one of the {world.size} processes" if world.size > 1 else ""
    missing = f"memory does not hold {before} pictures of {height}×{width} at once{where}"
    if len(batch.own) // parts < least:
        raise TrainingError(f"{missing}; choose a smaller image_size or another model")
    if world.size > 1:
        make_folder(run / FOLDER)
        write_atomically(run / FOLDER / SPLITS, str(splits).encode())
        raise TrainingError(
            f"{missing}; the same command with --resume goes on with {size} at once, {parts} times a step"
        )
    free_cached_memory()
    norms = "; batch norm has the statistics of the smaller part" if least > 1 else ""
    return (
        f"out of memory: the batch is halved to {size} pictures and accumulation doubled to {parts}, "
        f"a step still takes {batch.count}{norms}"
    )
