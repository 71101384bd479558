"""Under which options a foreign file computes what it computed at home: names of tensors alone do not say it.

The sheets know the ports of a network and their options. What a file needs follows from the catalogue (by its hash),
from the bundle that it is, or from the port that fits its names; where several ports fit that compute different
things, nothing is guessed.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taxonet.errors import BundleError, UsageError, nearest
from taxonet.networks.layers import Network
from taxonet.networks.registry import Variant, create_model, find
from taxonet.sheets import Port, load_sheet
from taxonet.weights.bundle import BundleInfo, read_info
from taxonet.weights.catalogue import Entry, entry_of_file
from taxonet.weights.checkpoint_files import read_checkpoint, sha256_of
from taxonet.weights.conversion import convert
from taxonet.weights.layouts import layout_of, layouts_of

LIBRARIES = ("torchvision", "timm")
NO_FUNCTION = ("dropout", "stochastic_depth", "memory_efficient", "aux_heads")  # options that change no answer


@dataclass(frozen=True)
class Recognised:
    """A weights file that has found its network: the renamed tensors and the options that they need."""

    variant: str
    family: str
    classifiers: tuple[str, ...]
    state: dict[str, Tensor]
    renamed: dict[str, Tensor]
    layout: str
    options: dict[str, Any]
    options_from: str
    sha256: str
    warning: str | None = None
    entry: Entry | None = None
    bundle: BundleInfo | None = None


def recognise(
    path: str | os.PathLike[str], name: str, source: str | None = None, asked: Mapping[str, Any] | None = None
) -> Recognised:
    """Read a weights file of the network `name` and find the layout of its names and the options that it needs.

    Args:
        path: a bundle or a checkpoint.
        name: the network, in our spelling or torchvision's or timm's; a port's own spelling chooses that port.
        source: whose names and habits the file follows; None tries all layouts.
        asked: options that the caller sets; they win over everything.

    Raises:
        UsageError: an unknown network or source, or several ports fit that compute different things.
        BundleError: the file is not safe to read or not of this network.
    """
    variant, asked = find(name), dict(asked or {})
    if "num_classes" in asked:
        raise UsageError("num_classes is no option of weights: it is the number of outputs that they have")
    layouts = _layouts(variant, source)
    state = read_checkpoint(path)
    digest = sha256_of(path)
    entry, bundle = entry_of_file(digest), _bundle_info(path)
    if entry is not None and entry.variant != variant.name:
        raise UsageError(f"{path} is {entry.name}, weights of {entry.variant} and not of {variant.name}")
    if bundle is not None and bundle.variant != variant.name:
        raise UsageError(f"{path} is a bundle of {bundle.variant}, not of {variant.name}")
    known = entry.options if entry else bundle.options if bundle else {}
    with torch.device("meta"):
        empty = create_model(variant.name, **{**known, **asked})
    try:
        layout, renamed = convert(state, empty, variant.family, layouts)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    warning = None
    if entry is not None:
        reason = f"the catalogue's for {entry.name}"
    elif bundle is not None:
        reason = "the bundle's"
    else:
        known, reason, warning = _of_ports(name, variant, layout, source, empty, asked)
    if asked:
        reason = f"given; otherwise {reason}" if known else "given"
    found = {**known, **asked}
    return Recognised(
        variant=variant.name,
        family=variant.family,
        classifiers=tuple(empty.classifiers()),
        state=state,
        renamed=renamed,
        layout=layout,
        options=found,
        options_from=reason,
        sha256=digest,
        warning=warning,
        entry=entry,
        bundle=bundle,
    )


def _layouts(variant: Variant, source: str | None) -> tuple[str, ...] | None:
    """The layouts to try: those of a library's ports where a library is named."""
    if source is None:
        return None
    own = ("taxonet", *layouts_of(variant.family))
    ported = [layout_of(variant.family, p) for p in _ports(variant) if p.library == source]
    found = tuple(dict.fromkeys([*ported, *([source] if source in own else [])]))
    if not found:
        libraries = [p.library for p in _ports(variant)]
        known = tuple(dict.fromkeys([*own, *libraries]))
        raise UsageError(
            f"no layout '{source}' of {variant.name} is known, only {', '.join(known)}{nearest(source, known)}"
        )
    return found


def _ports(variant: Variant) -> tuple[Port, ...]:
    return load_sheet(variant.family).variants[variant.name].ports


def _of_ports(
    name: str, variant: Variant, layout: str, source: str | None, network: Network, asked: Mapping[str, Any]
) -> tuple[Mapping[str, Any], str, str | None]:
    """The options of the port that a file of this layout is of, where they are from, and what is doubtful about it."""
    alike = _same_names(variant, layout, network)
    fitting = [p for p in _ports(variant) if layout_of(variant.family, p) in alike]
    if source in LIBRARIES:
        fitting = [p for p in fitting if p.library == source] or fitting
    if name != variant.name or source in LIBRARIES:
        fitting = [p for p in fitting if p.name == name] or fitting
    options = {key: p.default for key, p in variant.options().items() if key not in NO_FUNCTION}
    defaults = {key: variant.row.get(key, default) for key, default in options.items()}
    ways = {_key({**defaults, **function_of(port), **asked}): port for port in reversed(fitting)}
    if len(ways) > 1:
        raise UsageError(_ambiguous(variant, layout, list(reversed(ways.values()))))
    if fitting:
        return function_of(fitting[0]), f"those of {' and '.join(f'{p.library}: {p.name}' for p in fitting)}", None
    if not alike.intersection(LIBRARIES):  # our names, or those of code whose form is the default here
        return {}, "the network's own", _doubt_of_twins(variant, layout, network)
    _refuse_namesake(name, variant, alike)
    open_questions = {key: value for key, value in defaults.items() if key not in asked}
    if not open_questions:
        return {}, "the network's own", None
    doubt = f"{variant.name} is not among the known networks of {' and '.join(sorted(alike))} with these names"
    return {}, "assumed: the network's own", f"{doubt}; its own {_shown(open_questions)} is assumed, check the answers"


def function_of(port: Port) -> dict[str, Any]:
    """The options of a port on which its answers depend."""
    return {key: value for key, value in port.options.items() if key not in NO_FUNCTION}


def _same_names(variant: Variant, layout: str, network: Network) -> set[str]:
    """The layouts that name the modules of this network as `layout` does."""
    layouts = layouts_of(variant.family)
    if layout == "taxonet":
        return {"taxonet"}
    names = list(layouts[layout](network))
    return {other for other, naming in layouts.items() if list(naming(network)) == names}


def _refuse_namesake(name: str, variant: Variant, alike: set[str]) -> None:
    """What is called `name` elsewhere may have another name here, of a network with the same tensors."""
    facts = load_sheet(variant.family).variants
    for other in facts.values():
        for port in other.ports:
            same = port.name == name and layout_of(variant.family, port) in alike
            if same and other.params == facts[variant.name].params:
                raise UsageError(
                    f"the names of the tensors are those of {port.library}'s {name}, which is {other.name} here and "
                    f"computes something else than {variant.name}: say --as {other.name}"
                )


def _doubt_of_twins(variant: Variant, layout: str, network: Network) -> str | None:
    """Other variants with the same tensors under the same names: a warning, or a refusal where the layout is theirs."""
    if layout == "taxonet":
        return None
    facts, naming = load_sheet(variant.family).variants, layouts_of(variant.family)[layout]
    twins = []
    for other in facts.values():
        if other.name != variant.name and other.params == facts[variant.name].params:
            with torch.device("meta"):
                twin = create_model(other.name)
            if list(naming(twin)) == list(naming(network)):
                if any(layout_of(variant.family, port) == layout for port in other.ports):
                    raise UsageError(
                        f"the names of the tensors are those of {layout}'s files of {other.name}, which computes "
                        f"something else than {variant.name}: say --as {other.name}"
                    )
                twins.append(other.name)
    if not twins:
        return None
    others = " and ".join(twins)
    return f"files of {others} have the same names and shapes: nothing tells that this one is of {variant.name}"


def _ambiguous(variant: Variant, layout: str, ports: list[Port]) -> str:
    ways = []
    for port in ports:
        by_name = port.name != variant.name
        words = f"--as {port.name}" if by_name else f"--as {port.name} --from {port.library}"
        ways.append(f"{words} ({_shown(function_of(port)) or 'the options that are the default here'})")
    return (
        f"networks with the same names of tensors ({layout}) compute different things, so {variant.name} does not "
        f"say enough: {' or '.join(ways)}, or give the options"
    )


def _shown(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items())


def _key(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((key, value) for key, value in options.items() if key not in NO_FUNCTION))


def _bundle_info(path: str | os.PathLike[str]) -> BundleInfo | None:
    if Path(path).suffix != ".safetensors":
        return None
    try:
        return read_info(path)
    except BundleError:  # a plain safetensors file says nothing about its network
        return None
