"""The features of a network: what its classifier sees of each picture."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from taxonet.data import read_ahead
from taxonet.images import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

    from taxonet.networks.layers import Network

T = TypeVar("T")

BATCH = 32


def features_each(
    network: "Network",
    preprocessing: Preprocessing,
    items: Sequence[T],
    read: Callable[[T], NDArray[np.uint8] | None],
) -> Iterator[NDArray[np.float32] | None]:
    """The features (num_features,) of each item, in batches of 32; None where `read` gives no prepared pixels."""
    batch: list[NDArray[np.uint8] | None] = []
    for done, pixels in enumerate(read_ahead(read, items), start=1):
        batch.append(pixels)
        if len(batch) == BATCH or done == len(items):
            readable = [found for found in batch if found is not None]
            rows = iter(_pooled(network, preprocessing.normalized(np.stack(readable))) if readable else ())
            for found in batch:
                yield None if found is None else next(rows)
            batch = []


def _pooled(network: "Network", images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (N, num_features) of normalised images (N, C, H, W)."""
    import torch

    from taxonet.networks.memory import in_halves

    device = network.classifier.weight.device

    def run(part: "Tensor") -> "Tensor":
        maps = network.forward_features(part.to(device).contiguous(memory_format=torch.channels_last))
        return network.pooled(maps).cpu()

    with torch.inference_mode():
        rows: NDArray[np.float32] = in_halves(run, torch.from_numpy(images)).numpy()
    return rows
