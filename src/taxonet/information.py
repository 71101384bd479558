"""`info`: what is known of a network: its sheet beside the figures of the network as built."""

import fnmatch
from dataclasses import asdict, dataclass
from typing import Any

from taxonet.errors import UsageError, nearest
from taxonet.sheets import Divergence, Figure, NotReproduced, Paper, Port, VariantFacts, families, load_sheet
from taxonet.weights.catalogue import entries


@dataclass(frozen=True)
class ModelSummary:
    """One line of the list of networks; the figures are the sheet's."""

    name: str
    family: str
    params: int
    macs: int | None
    input_size: int
    num_classes: int
    pretrained: bool

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def models(
    pattern: str = "*", *, family: str | None = None, max_params: int | None = None, max_macs: int | None = None
) -> list[ModelSummary]:
    """The networks that match a shell `pattern`, are of `family`, and cost at most so much; loads no torch.

    Raises:
        UsageError: there is no such family, or no network matches.
    """
    if family is not None and family not in families():
        raise UsageError(f"there is no family '{family}', it must be one of {', '.join(families())}")
    pretrained = {entry.variant for entry in entries()}
    every = [
        ModelSummary(v.name, sheet.family, v.params, v.macs, v.input_size, v.num_classes, v.name in pretrained)
        for sheet in map(load_sheet, families())
        for v in sheet.variants.values()
    ]
    named = [m for m in every if fnmatch.fnmatch(m.name, pattern)] or _named_by_alias(pattern, every)
    if not named:
        raise UsageError(f"no network matches '{pattern}'{nearest(pattern, [m.name for m in every])}")
    return [
        m
        for m in named
        if family in (None, m.family)
        and (max_params is None or m.params <= max_params)
        and (max_macs is None or m.macs is None or m.macs <= max_macs)
    ]


def _named_by_alias(name: str, every: list[ModelSummary]) -> list[ModelSummary]:
    """A torchvision or timm spelling; the registry that knows them loads torch, so only where nothing else matches."""
    from taxonet.networks.registry import list_models

    targets = set() if any(letter in name for letter in "*?[") else set(list_models(name))
    return [m for m in every if m.name in targets]


UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Fidelity:
    """A published size of a network beside the network as built; `difference` is (built − published) / published."""

    what: str
    published: float
    unit: str
    source: str
    built: int
    difference: float


def fidelity(facts: VariantFacts, params: int, macs: int | None) -> tuple[Fidelity, ...]:
    """The published parameters and multiply-adds of a variant at its own input size, beside those given."""
    built = {"parameters": params, "multiply-adds": macs}
    rows = []
    for figure in facts.published:
        count = built.get(figure.metric)
        if count is not None and figure.value:
            published = figure.value * UNITS[figure.unit]
            difference = (count - published) / published
            rows.append(Fidelity(figure.metric, figure.value, figure.unit, figure.source, count, difference))
    return tuple(rows)


@dataclass(frozen=True)
class ModelInfo:
    """A network's facts; `params` and `macs` are counted on the network as built, for one image."""

    name: str
    aliases: tuple[str, ...]
    family: str
    idea: str
    params: int
    macs: int
    input_size: int
    channels: int
    num_classes: int
    options: dict[str, Any]
    choices: dict[str, list[Any]]
    preprocessing: str
    paper: Paper
    fidelity: tuple[Fidelity, ...]
    ports: tuple[Port, ...]
    published: tuple[Figure, ...]
    note: str
    divergences: tuple[Divergence, ...]
    not_reproduced: tuple[NotReproduced, ...]
    pretrained: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def info(name: str) -> ModelInfo:
    """Everything known of the network `name`: paper, published figures, built figures, divergences, weights.

    Raises:
        UsageError: there is no such network.
    """
    import torch

    from taxonet.networks import create_model
    from taxonet.networks.complexity import complexity
    from taxonet.networks.registry import aliases_of, choices_of, find

    variant = find(name)
    sheet = load_sheet(variant.family)
    facts = sheet.variants[variant.name]
    built = complexity(variant.name, facts.input_size, facts.channels, num_classes=facts.num_classes)
    with torch.device("meta"):
        preprocessing = create_model(variant.name).default_preprocessing
    return ModelInfo(
        name=variant.name,
        aliases=tuple(aliases_of(variant.name)),
        family=variant.family,
        idea=sheet.idea,
        params=built.params,
        macs=built.macs,
        input_size=facts.input_size,
        channels=facts.channels,
        num_classes=facts.num_classes,
        options={key: variant.row.get(key, p.default) for key, p in variant.options().items()},
        choices=choices_of(variant),
        preprocessing=preprocessing,
        paper=sheet.paper,
        fidelity=fidelity(facts, built.params, built.macs),
        ports=facts.ports,
        published=facts.published,
        note=facts.note,
        divergences=sheet.divergences,
        not_reproduced=sheet.not_reproduced,
        pretrained=tuple(entry.name for entry in entries() if entry.variant == variant.name),
    )


def draw(name: str, block: str | None = None) -> str:
    """A picture of the network `name` as SVG text: its stages, or the inside of one `block` such as "stage2.0".

    Raises:
        UsageError: there is no such network or block, or the block cannot be drawn.
    """
    from taxonet.drawing import draw_block, draw_stages
    from taxonet.networks.registry import find

    variant = find(name)
    facts = load_sheet(variant.family).variants[variant.name]
    return draw_stages(variant.name, facts) if block is None else draw_block(variant.name, facts, block)
