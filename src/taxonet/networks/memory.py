"""Forward passes where memory is short: a batch that does not fit is run in halves."""

from collections.abc import Callable

import torch
from torch import Tensor

from taxonet.errors import NoMemoryError

# torch has a class of its own for accelerators; on a CPU its allocator raises a plain RuntimeError
_CPU_SENTENCES = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is exhausted, on a CPU or an accelerator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sentence in str(error) for sentence in _CPU_SENTENCES)


def free_cached_memory() -> None:
    """Give back what torch keeps on an accelerator for later, after an allocation has failed."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_halves(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What `run` makes of images (N, …), a row each; where memory runs out, of their halves, and so on.

    Raises:
        NoMemoryError: memory does not hold even one of them.
    """
    try:
        return run(images)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    free_cached_memory()  # here and not above: the error holds what the failed pass had allocated
    if len(images) == 1:
        raise NoMemoryError(f"memory does not hold one picture of {images.shape[-2]}×{images.shape[-1]}")
    half = -(-len(images) // 2)
    return torch.cat([in_halves(run, images[:half]), in_halves(run, images[half:])])
