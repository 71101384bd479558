"""What a run asks for against what its network and its pictures allow."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch

from taxonet.data import Sample
from taxonet.errors import ImageError, UsageError
from taxonet.images import Augmentation, read_header
from taxonet.networks.layers import Network
from taxonet.weights.networks import takes_size

GREY_MODES = {"L", "1", "I;16"}


def channels_of(samples: Sequence[Sample], looked_at: int = 64) -> int:
    """1 where the pictures are grey (a sample of them is looked at), else 3."""
    modes: set[str] = set()
    for sample in samples[:: max(1, len(samples) // looked_at)]:
        try:
            modes.add(read_header(sample.path).mode)
        except ImageError:  # it will be reported when it is opened
            continue
    return 1 if modes and modes <= GREY_MODES else 3


def check_augmentation(text: str, size: tuple[int, int]) -> None:
    """Every picture must come out in the size that is evaluated."""
    augmentation, rng = Augmentation.parse(text), np.random.default_rng(0)
    sizes = {augmentation(PIL.Image.new("RGB", size), rng).shape[:2] for size in ((64, 48), (50, 90))}
    if len(sizes) > 1:
        raise UsageError(f"the augmentation '{text}' gives pictures of several sizes, it needs a crop to one size")
    height, width = sizes.pop()
    if (height, width) != size:
        raise UsageError(
            f"the augmentation '{text}' gives pictures of {height}×{width}, image_size asks for {size[0]}×{size[1]}: "
            "change one of them"
        )


def check_size(network: Network, variant: str, channels: int, size: tuple[int, int]) -> None:
    """Refuse pictures of which nothing is left at the end of the network, which is on the meta device."""
    if not takes_size(network, channels, *size):
        raise UsageError(f"pictures of {size[0]}×{size[1]} pixels are too small for {variant}")


def check_norm_values(variant: str, norms: Sequence[torch.nn.Module], overrides: dict[str, Any]) -> None:
    """Refuse values for batch norms that the network does not have."""
    asked = [name for name in ("norm_statistics", "norm_momentum") if overrides.get(name) is not None]
    if asked and not norms:
        raise UsageError(f"{variant} has no batch norm, so {asked[0]} says nothing; leave it out")


def check_frozen_stages(network: Network, variant: str, count: int, pretrained: bool) -> None:
    """Refuse to freeze more stages than there are, or stages that have learned nothing."""
    stages = len(list(network.body.children()))
    if count > stages:
        raise UsageError(f"{variant} has {stages} stages, frozen_stages is {count}")
    if count and not pretrained:
        raise UsageError(f"frozen_stages is {count}, and {variant} starts from no weights that could be kept")
