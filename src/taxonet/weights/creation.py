"""The public `create_model`: a network, with fresh weights or with those of the catalogue or of a file."""

import logging
import os
from typing import Any

from taxonet.errors import UsageError
from taxonet.networks.layers import Network
from taxonet.networks.registry import create_model as build
from taxonet.networks.registry import find
from taxonet.weights.catalogue import get_entry
from taxonet.weights.networks import find_pretrained

log = logging.getLogger(__name__)


def create_model(
    name: str,
    num_classes: int | None = None,
    in_channels: int | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Network:
    """Build the network `name`, with fresh weights or with those that `weights` names.

    With another number of classes than the weights have, the body keeps its weights and the classifier is fresh.
    With one channel instead of three, the first convolution gets the sum of its three filters, which answers a grey
    picture as the weights answer it in RGB up to the normalisation of the channels.

    Args:
        name: a variant's name or a torchvision/timm alias, see `list_models`.
        num_classes: outputs of the classifier; None is that of the weights, or the paper's number.
        in_channels: channels of the images, 3 for RGB and 1 for grey; None is that of the weights, or 3.
        weights: None; weights of the catalogue (`"densenet121.tv_in1k"`), which are brought into the cache where they
            are not there, `"default"` for its first of this network; or a file, as for `taxonet train --weights`.
        **options: the family's options, such as `dropout`; they win over those of the weights.

    Raises:
        UsageError: an unknown name, option or value, or weights of another network.
        BundleError: the weights file cannot be used.
        DownloadError: the weights are not here and cannot be brought.
    """
    if weights is None:
        return build(name, num_classes, 3 if in_channels is None else in_channels, **options)
    variant = find(name).name
    found = find_pretrained(name, get_entry(name).name if str(weights) == "default" else weights, options)
    if found is None:
        raise UsageError(f"weights is {str(weights)!r}, it must be None, 'default', a name of the catalogue or a file")
    channels = found.in_channels if in_channels is None else in_channels
    outputs = found.state["classifier.weight"].shape[0]
    classes = outputs if num_classes is None else num_classes
    network = build(variant, classes, channels, **{**found.options, **options})
    found.take_channels(channels)
    if not found.load_into(network, found.classes if classes == outputs else ()):
        origin = found.provenance["weights"]
        log.info("%s: a fresh classifier of %d outputs on the body of %s", variant, classes, origin)
    return network
