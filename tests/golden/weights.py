"""Weights and pictures that are a function of names and shapes alone, so that a fixture need not hold them."""

import hashlib
import math

import numpy as np
import torch


def weight(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The tensor called `key`: convolutions and linear layers keep the scale of what passes, norms are not trivial."""
    leaf = key.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    uniform = torch.from_numpy(np.asarray(np.random.default_rng(seed).random(shape, dtype=np.float32)))
    if len(shape) > 1 and math.prod(shape) > max(shape):  # else one value a channel, however it is shaped
        return (uniform * 2 - 1) * math.sqrt(6 / math.prod(shape[1:]))
    if leaf in ("bias", "running_mean"):
        return (uniform * 2 - 1) * 0.2
    if leaf == "weight":  # of a norm; small, so that residual sums do not grow until rounding decides the answer
        return uniform * 0.4 + 0.2
    return uniform + 0.5  # a variance, a gain


def images(size: int, count: int = 2) -> torch.Tensor:
    """(count, 3, size, size) of values between -1 and 1."""
    values = np.random.default_rng(7).random((count, 3, size, size), dtype=np.float32)
    return torch.from_numpy(values * 2 - 1)


LABELS = (3, 1)  # of the two images, for the training step
