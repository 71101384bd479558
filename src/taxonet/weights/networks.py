"""From a model's name or file to a network with its weights."""

import logging
import os
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from taxonet.console import Terminal
from taxonet.errors import BundleError, UsageError
from taxonet.images import Preprocessing
from taxonet.networks.layers import Network
from taxonet.networks.registry import create_model, find
from taxonet.weights.bundle import (
    BundleInfo,
    check_state,
    read_info,
    read_tensors,
    save_bundle,
    specs_of,
    tensor_specs,
)
from taxonet.weights.catalogue import Entry, find_entry, get_entry
from taxonet.weights.conversion import convert
from taxonet.weights.finding import FILE_SUFFIXES, Found, find_model, here
from taxonet.weights.layouts import preprocessing_of
from taxonet.weights.recognition import recognise

# How the source of a layout prepares pictures; other sources say so in the catalogue.
TORCHVISION_PREPROCESSING = "exif | rgb | resize(256, bilinear) | center_crop(224) | normalize(imagenet)"

log = logging.getLogger(__name__)


def usual_preprocessing(layout: str, network: Network) -> str | None:
    """How the source of a layout prepares pictures for this network; None where that is not known."""
    own = preprocessing_of(find(network.variant).family, layout)
    return own or (TORCHVISION_PREPROCESSING if layout == "torchvision" else None)


ROOMY = 64  # pixels of a side that no network reduces to nothing


def open_model(model: str | os.PathLike[str]) -> tuple[BundleInfo, Network]:
    """A network in evaluation mode with its weights, and what its bundle says.

    Args:
        model: the path of a bundle; weights of the catalogue (`densenet121.tv_in1k`), which are brought where they are
            not here; or a network (`efficientnet_lite0`) of which weights are installed or in the cache.

    Raises:
        BundleError: the file is no bundle, or its tensors are not those of its network.
        UsageError: neither a file nor weights of the catalogue nor a network with weights that are here.
        DownloadError: the weights are not here and cannot be brought.
    """
    return open_found(find_model(model))


def open_found(found: Found) -> tuple[BundleInfo, Network]:
    """The network of weights that `find_model` found."""
    return _open_entry(found.entry) if found.entry else _open_bundle(found.path)


def _open_bundle(path: Path) -> tuple[BundleInfo, Network]:
    info = read_info(path)
    try:
        with torch.device("meta"):  # nothing is allocated before the tensors are known to fit
            network = create_model(info.variant, **info.create_options)
        check_state(tensor_specs(path), specs_of(network.state_dict()))
        _check_preprocessing(info, network)
    except (BundleError, UsageError, TypeError) as error:
        raise BundleError(f"{path}: {error}") from error
    network.load_state_dict(read_tensors(path), strict=True, assign=True)
    return info, network.eval()


def _check_preprocessing(info: BundleInfo, empty: Network) -> None:
    """Pictures must come in one size and with the channels that the network (on the meta device) takes."""
    preprocessing = Preprocessing.parse(info.preprocessing)
    height, width = preprocessing.output_size
    if preprocessing.channels != info.in_channels:
        raise BundleError(
            f"the preprocessing '{preprocessing}' gives {preprocessing.channels} channels, "
            f"the network takes {info.in_channels}"
        )
    if not takes_size(empty, info.in_channels, height, width):
        raise BundleError(f"pictures of {height}×{width} pixels are too small for {info.variant}")


def takes_size(empty: Network, channels: int, height: int, width: int) -> bool:
    """Whether anything is left of a picture of that size at the end of a network, which is on the meta device."""
    if min(height, width) >= ROOMY:
        return True
    try:
        with torch.no_grad():
            empty.eval()(torch.empty(1, channels, height, width, device="meta"))
    except RuntimeError:
        return False
    return True


def _open_entry(entry: Entry) -> tuple[BundleInfo, Network]:
    if not entry.package:
        from taxonet.weights.pulling import pulled_bundle

        return _open_bundle(pulled_bundle(entry, Terminal()))
    info = entry.info()
    network = create_model(entry.variant, **entry.options)
    layout, state = convert(entry.state(), network, find(entry.variant).family)
    if layout != entry.layout:
        raise BundleError(f"the weights {entry.name} have the layout {layout}, the catalogue says {entry.layout}")
    network.load_state_dict(state, strict=True)
    return info, network.eval()


class Pretrained:
    """Weights to start from: a state that fits `variant`, how pictures were prepared for it, where it came from."""

    def __init__(
        self,
        state: Mapping[str, torch.Tensor],
        preprocessing: str,
        provenance: Mapping[str, str],
        classes: tuple[str, ...] | None = None,
        options: Mapping[str, Any] = types.MappingProxyType({}),
    ) -> None:
        self.state = dict(state)
        self.in_channels = int(options.get("in_channels", 3))
        # how the source's network differs from the default of its variant; the rest is the recipe's business
        others = ("in_channels", "dropout", "stochastic_depth", "aux_heads")
        self.options = {key: value for key, value in options.items() if key not in others}
        self.preprocessing = preprocessing
        self.provenance = dict(provenance)
        self.classes = classes  # None where the source does not say

    def take_channels(self, channels: int) -> None:
        """Take pictures of one channel where the weights were trained on RGB: a filter's three parts are summed.

        Raises:
            UsageError: another change of channels, for which there are no weights.
        """
        if channels == self.in_channels:
            return
        if (self.in_channels, channels) != (3, 1):
            raise UsageError(
                f"the weights take {self.in_channels} channels, the network {channels}: only 3 can be made 1"
            )
        first = next(key for key, value in self.state.items() if value.ndim == 4)
        self.state[first] = self.state[first].sum(1, keepdim=True)
        self.in_channels = 1

    def load_into(self, network: Network, classes: tuple[str, ...] | None) -> bool:
        """Load the weights; False when the classifier was left fresh because it was trained for other classes.

        Auxiliary heads are loaded where both sides have them, else they are left out or stay fresh.
        """
        own = network.state_dict()
        fits = {key: value for key, value in self.state.items() if key in own and value.shape == own[key].shape}
        heads = {f"{name}.{leaf}" for name in network.classifiers() for leaf in ("weight", "bias")}
        if self.classes != classes:  # the same number of other classes is no fit: labels travel by name
            fits = {key: value for key, value in fits.items() if key not in heads}
        missing = {key for key in set(own) - set(fits) if not key.startswith("auxiliary.")}
        if missing - heads:
            key = sorted(missing - heads)[0]
            shapes = f"{tuple(self.state[key].shape)}, the network needs {tuple(own[key].shape)}"
            raise BundleError(f"the weight {key} has the shape {shapes}")
        if missing:  # never a classifier of which half is trained
            fits = {key: value for key, value in fits.items() if key not in heads}
        network.load_state_dict(fits, strict=False)
        return not missing


def find_pretrained(
    variant: str, weights: str | os.PathLike[str], options: Mapping[str, Any] = types.MappingProxyType({})
) -> Pretrained | None:
    """The weights that training starts from.

    Args:
        variant: the network that is trained.
        weights: "auto" (the catalogue's, where they are installed or in the cache), "none", weights of the catalogue
            (`densenet121.tv_in1k`), which are brought where they are not here, or a file: a bundle, or a checkpoint of
            Taxonet, torchvision or another known layout (`.safetensors`, `.pth`).
        options: of the network, where the caller sets them.

    Raises:
        UsageError, BundleError: the file is missing, is not safe to read, or is not of this network.
        DownloadError: the weights are not here and cannot be brought.
    """
    if str(weights) == "none":
        return None
    if str(weights) == "auto":
        entry = here(find(variant).name)
        return _pretrained_from_entry(variant, entry) if entry else None
    path = Path(weights)
    if path.exists():
        return _pretrained_from_file(variant, path, options)
    entry = find_entry(str(weights))
    if entry is None and (path.suffix in FILE_SUFFIXES or len(path.parts) > 1 or "." not in str(weights)):
        raise UsageError(
            f"the weights file {path} does not exist, --weights takes auto, none, a file or a name of "
            "`taxonet pull --list`"
        )
    return _pretrained_from_entry(variant, entry or get_entry(str(weights)))


def _pretrained_from_entry(variant: str, entry: Entry) -> Pretrained:
    if entry.variant != find(variant).name:
        raise UsageError(f"{entry.name} are weights of {entry.variant}, not of {find(variant).name}")
    info, network = _open_entry(entry)
    origin = {"weights": entry.name, "sha256": str(info.provenance["sha256"])}
    return Pretrained(network.state_dict(), info.preprocessing, origin, info.classes, info.options)


def _pretrained_from_file(variant: str, path: Path, options: Mapping[str, Any]) -> Pretrained:
    found = recognise(path, variant, asked=options)
    own = found.entry.info() if found.entry else found.bundle
    if found.warning:
        log.warning("%s: %s", path, found.warning)
    with torch.device("meta"):
        empty = create_model(found.variant, **found.options)
    usual = usual_preprocessing(found.layout, empty) or empty.default_preprocessing
    preprocessing = own.preprocessing if own else usual
    source = {"weights": found.entry.name if found.entry else path.name, "layout": found.layout, "sha256": found.sha256}
    return Pretrained(found.renamed, preprocessing, source, own.classes if own else None, found.options)


def save_network(path: str | os.PathLike[str], info: BundleInfo, network: Network) -> None:
    """Write a network and its information as a bundle, atomically."""
    options = {key: value for key, value in network.options.items() if key != "num_classes"}
    save_bundle(path, replace(info, variant=network.variant, options=options), network.state_dict())
