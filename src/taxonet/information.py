"""`info`: what is known of a network: its sheet beside the figures of the network as built."""

from dataclasses import asdict, dataclass
from typing import Any

from taxonet.networks.complexity import complexity
from taxonet.networks.registry import find
from taxonet.sheets import Divergence, Figure, Paper, load_sheet


@dataclass(frozen=True)
class ModelInfo:
    """A network's facts; `params` and `macs` are counted on the network as built, for one image."""

    name: str
    family: str
    idea: str
    params: int
    macs: int
    input_size: int
    channels: int
    num_classes: int
    options: dict[str, Any]
    preprocessing: str
    paper: Paper
    published: tuple[Figure, ...]
    note: str
    divergences: tuple[Divergence, ...]
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
    from taxonet.weights.catalogue import entries

    variant = find(name)
    sheet = load_sheet(variant.family)
    facts = sheet.variants[variant.name]
    built = complexity(variant.name, facts.input_size, facts.channels, num_classes=facts.num_classes)
    with torch.device("meta"):
        preprocessing = create_model(variant.name).default_preprocessing
    return ModelInfo(
        name=variant.name,
        family=variant.family,
        idea=sheet.idea,
        params=built.params,
        macs=built.macs,
        input_size=facts.input_size,
        channels=facts.channels,
        num_classes=facts.num_classes,
        options={key: variant.row.get(key, p.default) for key, p in variant.options().items()},
        preprocessing=preprocessing,
        paper=sheet.paper,
        published=facts.published,
        note=facts.note,
        divergences=sheet.divergences,
        pretrained=tuple(entry.name for entry in entries() if entry.variant == variant.name),
    )
