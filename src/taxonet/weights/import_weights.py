"""A checkpoint of another library becomes a bundle: names, shapes, class names, preprocessing, provenance."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from taxonet.assets import imagenet_classes
from taxonet.errors import BundleError, UsageError, nearest
from taxonet.images import Preprocessing
from taxonet.networks.layers import Network
from taxonet.networks.registry import create_model
from taxonet.weights.bundle import BundleInfo
from taxonet.weights.catalogue import KNOWN_CLASSES
from taxonet.weights.conversion import COUNTER, dotted
from taxonet.weights.layouts import spare_of, takes_bgr
from taxonet.weights.networks import save_network, usual_preprocessing
from taxonet.weights.recognition import Recognised, recognise

OTHER_FORMATS = (".pth", ".pt", ".th", ".ckpt", ".bin", ".pkl", ".onnx", ".xml", ".pt2")


@dataclass(frozen=True)
class Imported:
    """What an import did: the layout that fitted, the network's options, what was adapted, and what is doubtful."""

    bundle: Path
    variant: str
    layout: str
    tensors: int
    adapted: tuple[str, ...]
    options: dict[str, Any]
    options_from: str
    classes: int
    classes_from: str
    preprocessing: str
    preprocessing_from: str
    sha256: str
    warning: str | None = None

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
    bgr: bool | None = None,
    licence: str | None = None,
    **options: Any,
) -> Imported:
    """Make a bundle of a checkpoint (`.pth` of plain tensors, or safetensors) for the network `name`.

    Every tensor must find its place and no place may stay empty; nothing is guessed from the order of the file.

    Args:
        path: the checkpoint; `state_dict`/`model` wrappers and `module.` prefixes are taken off.
        name: the network, in our spelling or torchvision's or timm's; timm's chooses between timm's forms.
        out: the bundle to write.
        source: whose file it is ("torchvision", "timm", …), for its names and for the options that its networks need;
            None tries all that the family knows.
        classes: names in the order of the outputs, a file with one a line or a JSON list, "imagenet" or "cifar10"; None
            is ImageNet's for 1000 outputs. With one output more than names the first is dropped, as a background class.
        preprocessing: how the weights want their pictures; None is that of the source where it is known. Means and
            deviations are in units of 0 to 1 and in the order R, G, B: what was trained on x − mean of pixels from 0
            to 255 is `normalize((R/255, G/255, B/255), (1/255, 1/255, 1/255))`.
        bgr: the weights were trained on BGR pictures: the first convolution is turned to RGB. None is what is known of
            the layout: true for Caffe's.
        licence: of the weights; None is the catalogue's where it knows the file.
        **options: of the network, such as `padding="same"`; they win over those of the source.

    Raises:
        UsageError: an unknown network, layout, option or preprocessing, class names that cannot be known, or a network
            of which several forms have the same names of tensors.
        BundleError: the file is not safe to read, or is not of this network.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"the weights file {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    if Path(out).suffix.lower() in OTHER_FORMATS:
        raise UsageError(f"a bundle is a .safetensors file, {out} has the name of another format")
    found = recognise(path, name, source, options)
    renamed = found.renamed
    turn = takes_bgr(found.family, found.layout) if bgr is None else bgr
    try:
        adapted = _adaptations(found.state, renamed, spare_of(found.family, found.layout))
        outputs = renamed["classifier.weight"].shape[0]
        names, names_from = _known_classes(found) if classes is None else _class_names(classes, outputs)
        if not names:
            names, names_from = _assumed_classes(outputs)
        renamed, dropped = _without_background(renamed, found.classifiers, len(names))
        if turn:
            renamed = _rgb_first(renamed)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    habit = "" if bgr else f", the habit of {found.layout}'s files (--no-bgr leaves it)"
    adapted += dropped + ((f"the first convolution turned from BGR to RGB{habit}",) if turn else ())
    network = create_model(found.variant, num_classes=len(names), **found.options)
    network.load_state_dict(renamed, strict=True)
    text, text_from = _preprocessing(preprocessing, found, network)
    own = found.entry.info() if found.entry else found.bundle
    origin = {"weights": path.name, "layout": found.layout, "sha256": found.sha256, "adapted": list(adapted)}
    info = BundleInfo(
        variant=found.variant,
        classes=names,
        preprocessing=text,
        licence=licence or (own.licence if own else None),
        metrics=own.metrics if own else {},
        provenance={**(own.provenance if found.entry and own else {}), **origin, "weights": name_of(found, path)},
    )
    save_network(out, info, network)
    return Imported(
        bundle=Path(out),
        variant=found.variant,
        layout=found.layout,
        tensors=sum(COUNTER not in key for key in renamed),
        adapted=adapted,
        options=dict(found.options),
        options_from=found.options_from,
        classes=len(names),
        classes_from=names_from,
        preprocessing=text,
        preprocessing_from=text_from,
        sha256=found.sha256,
        warning=found.warning,
    )


def name_of(found: Recognised, path: Path) -> str:
    """What a bundle says of where its weights are from: the catalogue's name where it knows the file."""
    return found.entry.name if found.entry else path.name


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


def _known_classes(found: Recognised) -> tuple[tuple[str, ...], str]:
    """The names that the file brings itself, or that the catalogue has for it; none where nobody says."""
    if found.bundle is not None:
        return found.bundle.classes, "the bundle's"
    return (found.entry.class_names(), f"the catalogue's for {found.entry.name}") if found.entry else ((), "")


def _assumed_classes(outputs: int) -> tuple[tuple[str, ...], str]:
    if outputs in (1000, 1001):
        return imagenet_classes(), f"assumed: {outputs} outputs are ImageNet's classes in the usual order"
    raise UsageError(f"the weights have {outputs} outputs and name no classes: give their names with --classes")


def _class_names(classes: Any, outputs: int) -> tuple[tuple[str, ...], str]:
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


def _preprocessing(asked: str | None, found: Recognised, network: Network) -> tuple[str, str]:
    if asked is not None:
        channels = Preprocessing.parse(asked).channels
        wanted = int(network.options["in_channels"])
        if channels != wanted:
            raise UsageError(f"the preprocessing '{asked}' gives {channels} channels, the network takes {wanted}")
        return asked, "given"
    if found.entry is not None:
        return found.entry.preprocessing, f"the catalogue's for {found.entry.name}"
    if found.bundle is not None:
        return found.bundle.preprocessing, "the bundle's"
    usual = usual_preprocessing(found.layout, network)
    if usual is not None:
        return usual, f"assumed: {found.layout}'s usual one"
    return network.default_preprocessing, "assumed: the network's own default"
