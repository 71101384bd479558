"""From a model's name or file to a network with its weights."""

import os
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from taxonet.errors import BundleError, UsageError, nearest
from taxonet.images import Preprocessing
from taxonet.networks.layers import Network
from taxonet.networks.registry import create_model, find, list_models
from taxonet.weights.bundle import (
    BundleInfo,
    check_state,
    read_info,
    read_tensors,
    save_bundle,
    specs_of,
    tensor_specs,
)
from taxonet.weights.catalogue import Entry, entries, find_entry
from taxonet.weights.checkpoint_files import read_checkpoint, sha256_of
from taxonet.weights.importers import convert
from taxonet.weights.layouts import preprocessing_of

# How the source of a layout prepares pictures; other sources say so in the catalogue.
TORCHVISION_PREPROCESSING = "exif | rgb | resize(256, bilinear) | center_crop(224) | normalize(imagenet)"


def usual_preprocessing(layout: str, network: Network) -> str | None:
    """How the source of a layout prepares pictures for this network; None where that is not known."""
    own = preprocessing_of(find(network.variant).family, layout)
    return own or (TORCHVISION_PREPROCESSING if layout == "torchvision" else None)


ROOMY = 64  # pixels of a side that no network reduces to nothing


def open_model(model: str | os.PathLike[str]) -> tuple[BundleInfo, Network]:
    """A network in evaluation mode with its weights, and what its bundle says.

    Args:
        model: the path of a bundle, or a name of the catalogue (`efficientnet_lite0`).

    Raises:
        BundleError: the file is no bundle, or its tensors are not those of its network.
        UsageError: neither a file nor a name with pretrained weights.
    """
    path, entry = Path(model), find_entry(str(model))
    if path.is_file() or (entry is None and (path.exists() or path.suffix or len(path.parts) > 1)):
        return _open_bundle(path)
    variant = entry.variant if entry else _variant_or_model_hint(str(model))
    entry = entry or find_entry(variant)
    if entry is None:
        have = ", ".join(e.variant for e in entries())
        raise UsageError(f"there are no pretrained weights of {variant} here, only of {have}; give a bundle's path")
    return _open_entry(entry)


def _variant_or_model_hint(name: str) -> str:
    try:
        return find(name).name
    except UsageError as error:
        hint = nearest(name, list_models()) or "; give a bundle's path or a name such as efficientnet_lite0"
        raise UsageError(f"'{name}' is neither a file nor a network{hint}") from error


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
    info = entry.info()
    network = create_model(entry.variant)
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
        others = ("in_channels", "dropout", "aux_heads")
        self.options = {key: value for key, value in options.items() if key not in others}
        self.preprocessing = preprocessing
        self.provenance = dict(provenance)
        self.classes = classes  # None where the source does not say

    def load_into(self, network: Network, classes: tuple[str, ...]) -> bool:
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


def find_pretrained(variant: str, weights: str | os.PathLike[str]) -> Pretrained | None:
    """The weights that training starts from.

    Args:
        variant: the network that is trained.
        weights: "auto" (the catalogue's, where installed), "none", or a file: a bundle, or a checkpoint of Taxonet,
            torchvision or another known layout (`.safetensors`, `.pth`).

    Raises:
        UsageError, BundleError: the file is missing, is not safe to read, or is not of this network.
    """
    if str(weights) == "none":
        return None
    if str(weights) == "auto":
        entry = find_entry(variant)
        if entry is None or entry.path is None:
            return None
        network = create_model(variant)
        _, state = convert(entry.state(), network, find(variant).family)
        source = {"weights": entry.name, "sha256": entry.sha256}
        return Pretrained(state, entry.preprocessing, source, entry.info().classes)
    return _pretrained_from_file(variant, Path(weights))


def _pretrained_from_file(variant: str, path: Path) -> Pretrained:
    if not path.exists():
        raise UsageError(f"the weights file {path} does not exist, --weights takes auto, none or a file")
    state = read_checkpoint(path)
    info = _bundle_info(path) if path.suffix == ".safetensors" else None
    options = dict(info.options) if info and info.variant == find(variant).name else {}
    network = create_model(variant, **options)
    try:
        layout, state = convert(state, network, find(variant).family)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    preprocessing = usual_preprocessing(layout, network) or network.default_preprocessing
    source = {"weights": path.name, "layout": layout, "sha256": sha256_of(path)}
    if info is not None:
        return Pretrained(state, info.preprocessing, source, info.classes, options)
    return Pretrained(state, preprocessing, source)


def _bundle_info(path: Path) -> BundleInfo | None:
    try:
        return read_info(path)
    except BundleError:  # a plain safetensors file says nothing about its pictures
        return None


def save_network(path: str | os.PathLike[str], info: BundleInfo, network: Network) -> None:
    """Write a network and its information as a bundle, atomically."""
    options = {key: value for key, value in network.options.items() if key != "num_classes"}
    save_bundle(path, replace(info, variant=network.variant, options=options), network.state_dict())
