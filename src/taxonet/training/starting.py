"""What a network starts a run from: its weights, the pictures it takes, the facts that its recipe depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from taxonet.images import Preprocessing
from taxonet.networks.layers import Network, batch_norms
from taxonet.networks.registry import create_model
from taxonet.training.choose import Facts, has_stochastic_depth
from taxonet.training.compatibility import channels_of
from taxonet.training.pictures import Split, counted
from taxonet.training.recipe import Recipe
from taxonet.weights.networks import Pretrained, find_pretrained


@dataclass(frozen=True)
class Start:
    """A network with the weights it starts from; `plain` is on the meta device, `preprocessing` at its own size."""

    variant: str
    pretrained: Pretrained | None
    channels: int
    plain: Network
    preprocessing: Preprocessing

    def facts(self, split: Split, on_gpu: bool = False) -> Facts:
        """What a recipe for this network and these pictures depends on."""
        size, pretrained = min(self.preprocessing.output_size), self.pretrained is not None
        return facts_of(self.plain, size, split, pretrained, on_gpu)

    def sized(self, size: int) -> Preprocessing:
        """The preprocessing for pictures of `size` pixels."""
        own = self.preprocessing
        return own if size == min(own.output_size) else own.with_size(size)

    def build(self, recipe: Recipe, classes: int) -> Network:
        """The network of a run with fresh weights, the same for the same seed."""
        torch.manual_seed(recipe.seed)
        options: Mapping[str, Any] = self.pretrained.options if self.pretrained else {}
        return create_model(
            self.variant,
            num_classes=classes,
            in_channels=self.channels,
            dropout=recipe.dropout,
            **({"stochastic_depth": recipe.stochastic_depth} if has_stochastic_depth(self.variant) else {}),
            **({"aux_heads": True} if recipe.aux_heads else {}),
            **options,
        )


def facts_of(plain: Network, size: int, split: Split, pretrained: bool, on_gpu: bool = False) -> Facts:
    """What a recipe depends on; `size` is that of the network's own pictures."""
    norms = batch_norms(plain)
    momentum = norms[0].momentum or 0.1 if norms else None
    return Facts(plain.variant, size, len(split.train), pretrained, momentum, tuple(counted(split)), on_gpu)


def start_of(variant: str, weights: str, split: Split) -> Start:
    """A network as a run starts with it; `weights` as `train` takes them."""
    pretrained = find_pretrained(variant, weights)
    channels = pretrained.in_channels if pretrained else channels_of(split.train)
    with torch.device("meta"):
        plain = create_model(variant, num_classes=len(split.classes), in_channels=channels)
    text = pretrained.preprocessing if pretrained else plain.default_preprocessing
    return Start(variant, pretrained, channels, plain, Preprocessing.parse(text).with_channels(channels))
