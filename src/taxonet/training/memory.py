"""What happens when a batch does not fit into memory: it is halved, and as many gradients more are added up."""

import torch
from torch import Tensor

from taxonet.networks.layers import Network, batch_norms

# torch has a class of its own for accelerators; on a CPU its allocator raises a plain RuntimeError
_CPU_SENTENCES = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is exhausted, on a CPU or an accelerator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sentence in str(error) for sentence in _CPU_SENTENCES)


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


def smallest_part(network: Network) -> int:
    """The fewest pictures that a forward pass may have: batch norm needs two to know a deviation."""
    return 2 if any(norm.training for norm in batch_norms(network)) else 1
