"""What is known of the models that are served, and of every network of the catalogue; loads no torch."""

import functools
import json
from dataclasses import asdict
from typing import Any

from taxonet.images import Preprocessing
from taxonet.information import models
from taxonet.serving.deployment import Served
from taxonet.sheets import Sheet, VariantFacts, families, load_sheet
from taxonet.weights.bundle import BundleInfo
from taxonet.weights.catalogue import entries


def card_of(model: Served) -> dict[str, Any]:
    """A served model's card: its bundle, and the sheet of its network."""
    info = model.info
    sheet = sheet_of(info.variant)
    facts = sheet.variants[info.variant] if sheet else None
    preprocessing = Preprocessing.parse(info.preprocessing)
    return {
        "name": model.name,
        "variant": info.variant,
        "family": sheet.family if sheet else None,
        "paper": asdict(sheet.paper) if sheet else None,
        "idea": sheet.idea if sheet else None,
        "parameters": model.parameters or _published(facts, info),
        "multiply_adds": facts.macs if facts else None,
        "input_size": [*preprocessing.output_size, preprocessing.channels],
        "classes": list(info.classes),
        "preprocessing": info.preprocessing,
        "calibration": {"temperature": info.temperature, "threshold": info.threshold},
        "metrics": dict(info.metrics),
        "licence": info.licence,
        "provenance": dict(info.provenance),
        "created": info.created,
        "loaded": model.loaded,
        "engine": model.engine,
        "explains": model.explains,
    }


def _published(facts: VariantFacts | None, info: BundleInfo) -> int | None:
    """What the sheet says, where the classes are as many as it counts."""
    return facts.params if facts and facts.num_classes == info.num_classes else None


def network_names() -> list[str]:
    """Every network of the catalogue."""
    return [name for family in families() for name in load_sheet(family).variants]


def sheet_of(variant: str) -> Sheet | None:
    """The sheet that has a variant."""
    return next((sheet for sheet in map(load_sheet, families()) if variant in sheet.variants), None)


@functools.cache
def catalogue() -> str:
    """Every network with its figures and weights, and every family with its paper and idea, as JSON."""
    weights: dict[str, list[dict[str, Any]]] = {}
    for entry in entries():
        line = {
            "name": entry.name,
            "source": entry.source,
            "licence": entry.licence,
            "published": dict(entry.published),
        }
        weights.setdefault(entry.variant, []).append(line)
    sheets = [load_sheet(family) for family in families()]
    facts = {name: variant for sheet in sheets for name, variant in sheet.variants.items()}
    networks = [
        {
            "name": one.name,
            "family": one.family,
            "parameters": one.params,
            "multiply_adds": one.macs,
            "input_size": one.input_size,
            "classes": one.num_classes,
            "published": [asdict(figure) for figure in facts[one.name].published],
            "weights": weights.get(one.name, []),
        }
        for one in models()
    ]
    described = [
        {"family": one.family, "title": one.title, "idea": one.idea, "paper": asdict(one.paper)} for one in sheets
    ]
    return json.dumps({"families": described, "networks": networks}, ensure_ascii=False)
