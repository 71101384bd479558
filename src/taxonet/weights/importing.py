"""A checkpoint of another library becomes a bundle: names, shapes, class names, preprocessing, provenance."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taxonet.assets import CIFAR10_CLASSES, imagenet_classes
from taxonet.errors import BundleError, UsageError, nearest
from taxonet.images import Preprocessing
from taxonet.networks.layers import Network
from taxonet.networks.registry import create_model, find
from taxonet.weights.bundle import BundleInfo
from taxonet.weights.catalogue import entries
from taxonet.weights.checkpoint_files import read_checkpoint, sha256_of
from taxonet.weights.importers import COUNTER, convert, dotted
from taxonet.weights.layouts import layouts_of, spare_of
from taxonet.weights.networks import save_network, usual_preprocessing

KNOWN_CLASSES: dict[str, Callable[[], tuple[str, ...]]] = {
    "imagenet": imagenet_classes,
    "cifar10": lambda: CIFAR10_CLASSES,
}


@dataclass(frozen=True)
class Imported:
    """What an import did: the layout that fitted, what was adapted, and what the bundle says."""

    bundle: Path
    variant: str
    layout: str
    tensors: int
    adapted: tuple[str, ...]
    classes: int
    classes_from: str
    preprocessing: str
    preprocessing_from: str
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"bundle": str(self.bundle), "adapted": list(self.adapted)}


def import_weights(
    path: str | os.PathLike[str],
    name: str,
    out: str | os.PathLike[str],
    *,
    source: str | None = None,
    classes: str | os.PathLike[str] | Sequence[str] | None = None,
    preprocessing: str | None = None,
    bgr: bool = False,
    licence: str | None = None,
    **options: Any,
) -> Imported:
    """Make a bundle of a checkpoint (`.pth` of plain tensors, or safetensors) for the network `name`.

    Every tensor must find its place and no place may stay empty; nothing is guessed from the order of the file.

    Args:
        path: the checkpoint; `state_dict`/`model` wrappers and `module.` prefixes are taken off.
        name: the network, in our spelling or torchvision's or timm's.
        out: the bundle to write.
        source: the layout of the file ("torchvision", "timm", …); None tries all that the family knows.
        classes: names in the order of the outputs, a file with one a line or a JSON list, "imagenet" or "cifar10"; None
            is ImageNet's for 1000 outputs. With one output more than names the first is dropped, as a background class.
        preprocessing: how the weights want their pictures; None is that of the source where it is known.
        bgr: the weights were trained on BGR pictures (Caffe): the first convolution is turned to RGB.
        licence: of the weights.
        **options: of the network, such as `padding="same"`.

    Raises:
        UsageError: an unknown network, layout, option or preprocessing, or class names that cannot be known.
        BundleError: the file is not safe to read, or is not of this network.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"the weights file {path} does not exist")
    variant = find(name)
    known = ("taxonet", *layouts_of(variant.family))
    if source is not None and source not in known:
        raise UsageError(
            f"no layout '{source}' of {variant.name} is known, only {', '.join(known)}{nearest(source, known)}"
        )
    state = read_checkpoint(path)
    with torch.device("meta"):
        empty = create_model(variant.name, **options)
    try:
        layout, renamed = convert(state, empty, variant.family, source)
        adapted = _adaptations(state, renamed, spare_of(variant.family, layout))
        names, names_from = _class_names(classes, renamed["classifier.weight"].shape[0])
        renamed, dropped = _without_background(renamed, tuple(empty.classifiers()), len(names))
        if bgr:
            renamed = _rgb_first(renamed)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    adapted += dropped + (("the first convolution turned from BGR to RGB",) if bgr else ())
    digest = sha256_of(path)
    network = create_model(variant.name, num_classes=len(names), **options)
    network.load_state_dict(renamed, strict=True)
    text, text_from = _preprocessing(preprocessing, layout, digest, network)
    info = BundleInfo(
        variant=variant.name,
        classes=names,
        preprocessing=text,
        licence=licence,
        provenance={"weights": path.name, "layout": layout, "sha256": digest, "adapted": list(adapted)},
    )
    save_network(out, info, network)
    tensors = sum(COUNTER not in key for key in renamed)
    return Imported(Path(out), variant.name, layout, tensors, adapted, len(names), names_from, text, text_from, digest)


def _adaptations(state: Mapping[str, Tensor], renamed: Mapping[str, Tensor], spare: tuple[str, ...]) -> tuple[str, ...]:
    notes = []
    used = {value.data_ptr() for value in renamed.values()}
    if any(key.startswith(spare) and value.data_ptr() not in used for key, value in state.items() if value.numel() > 1):
        notes.append("the auxiliary heads of the file left out")
    if any(dotted(key) for key in state):
        notes.append("dotted names of old DenseNet files")
    convolutions = {value.data_ptr() for value in state.values() if value.ndim == 4}
    linear = [key for key, value in renamed.items() if value.ndim == 2 and value.data_ptr() in convolutions]
    if linear:
        notes.append(f"convolutions written as linear layers: {', '.join(linear)}")
    if any(COUNTER in key for key in renamed) and not any(COUNTER in key for key in state):
        notes.append("batch counters, which the file lacks, start at 0")
    return tuple(notes)


def _class_names(classes: Any, outputs: int) -> tuple[tuple[str, ...], str]:
    if classes is None:
        if outputs in (1000, 1001):
            return imagenet_classes(), f"assumed: {outputs} outputs are ImageNet's classes in the usual order"
        raise UsageError(f"the weights have {outputs} outputs and name no classes: give their names with --classes")
    if isinstance(classes, str) and classes in KNOWN_CLASSES:
        names, origin = KNOWN_CLASSES[classes](), classes
    elif isinstance(classes, str | os.PathLike):
        names, origin = _names_of(Path(classes)), str(classes)
    else:
        names, origin = tuple(classes), "given"
    if len(names) not in (outputs, outputs - 1):
        raise UsageError(f"the weights have {outputs} outputs, {origin} names {len(names)} classes")
    return names, origin


def _names_of(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text("utf-8")
        names = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        words = ", ".join(KNOWN_CLASSES)
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise UsageError(
            f"the file of class names {path} {reason}; known by a word are {words}{nearest(str(path), KNOWN_CLASSES)}"
        ) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{path} is not a JSON list of class names")
    return tuple(names)


def _without_background(
    state: dict[str, Tensor], classifiers: tuple[str, ...], count: int
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """TensorFlow's classifiers have a first output for what is none of the classes."""
    if state["classifier.weight"].shape[0] == count:
        return state, ()
    kept = {key: state[key][1:] for name in classifiers for key in (f"{name}.weight", f"{name}.bias") if key in state}
    return {**state, **kept}, ("the background class, output 0, dropped",)


def _rgb_first(state: dict[str, Tensor]) -> dict[str, Tensor]:
    key = next(key for key, value in state.items() if value.ndim == 4)
    if state[key].shape[1] != 3:
        raise BundleError(f"the first convolution takes {state[key].shape[1]} channels, which BGR pictures do not have")
    return {**state, key: state[key].flip(1)}


def _preprocessing(asked: str | None, layout: str, digest: str, network: Network) -> tuple[str, str]:
    if asked is not None:
        channels = Preprocessing.parse(asked).channels
        wanted = int(network.options["in_channels"])
        if channels != wanted:
            raise UsageError(f"the preprocessing '{asked}' gives {channels} channels, the network takes {wanted}")
        return asked, "given"
    entry = next((entry for entry in entries() if entry.sha256 == digest), None)
    if entry is not None:
        return entry.preprocessing, f"the catalogue's for {entry.name}"
    usual = usual_preprocessing(layout, network)
    if usual is not None:
        return usual, f"assumed: {layout}'s usual one"
    return network.default_preprocessing, "assumed: the network's own default"
