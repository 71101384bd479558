"""What a budget can be spent on: networks whose weights are here, small ones that start fresh, their sizes and recipes.

Nothing is brought over the network: what `taxonet pull` would add is only said.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from taxonet.data import Sample
from taxonet.errors import ImageError, UsageError
from taxonet.images import Preprocessing, read_header
from taxonet.networks.layers import Network
from taxonet.networks.registry import create_model, find
from taxonet.sheets import VariantFacts, load_sheet
from taxonet.training.budget_rule import Option
from taxonet.training.choose import SMALL_SET, choose_recipe, unused_when_frozen
from taxonet.training.pictures import Split
from taxonet.training.recipe import Recipe, given_values
from taxonet.training.starting import facts_of
from taxonet.weights.catalogue import Entry, entries
from taxonet.weights.finding import here
from taxonet.weights.networks import find_pretrained, takes_size

TINY = 48  # pixels of the short side up to which pictures are those of CIFAR or MNIST
# Without weights. The figures are those of the sheets: CIFAR-10 with augmentation for the tiny, else ImageNet.
FRESH_TINY = ("resnet20_cifar", "resnet32_cifar", "densenet_bc_100_12")
FRESH = ("mobilenet_v3_small", "resnet18", "efficientnet_lite0")
# An ImageNet network on CIFAR-10 answers more of its easier pictures: figures beside those of FRESH_TINY need so much
# more (MobileNet v1: 70.6 on ImageNet; fine-tuned on CIFAR-10 above 90: Kornblith et al., CVPR 2019, from memory).
TRANSFER_TO_TINY = 21.0
SMALLEST, STEP, NEAR_NATIVE = 96, 32, 0.93  # sizes: multiples of 32 from 96 to 0.93 of the network's own, and that
LONGER = 2  # times the recipe's own epochs: more are not worth their time when fine-tuning
MOST_FRESH_EPOCHS = 300


@dataclass(frozen=True)
class Wish:
    """What the user has fixed; the rest is chosen."""

    model: str | None
    recipe: str | os.PathLike[str] | Recipe | None
    weights: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A network that could be trained: where it starts, what was published of it, what it costs."""

    network: str
    weights: str  # "none", "auto", or what the user gave
    accuracy: float  # percent; 0 where nothing is published
    preprocessing: Preprocessing
    plain: Network  # on the meta device
    sheet: VariantFacts

    @property
    def native(self) -> int:
        """The size of its pictures."""
        return min(self.preprocessing.output_size)

    def macs(self, size: int) -> float:
        """Multiply-adds for one picture, by the sheet's figure."""
        return (self.sheet.macs_m or 1.0) * 1e6 * (size / self.sheet.input_size) ** 2


def candidates(wish: Wish, split: Split) -> list[Candidate]:
    """The networks to choose from; the one that the user names where one is named."""
    tiny = short_side(split.train) <= TINY
    if wish.model is not None:
        return [_candidate(find(wish.model).name, wish.weights, len(split.classes), tiny)]
    if wish.weights not in ("auto", "none"):
        raise UsageError(f"the weights {wish.weights} are those of one network, add --model NAME to --budget")
    found = [] if wish.weights == "none" else [of_entry(entry, len(split.classes), tiny) for entry in networks_here()]
    if tiny or not found:
        names = FRESH_TINY if tiny else FRESH
        found += [_candidate(name, "none", len(split.classes), tiny) for name in names]
    return found


def networks_here() -> list[Entry]:
    """The weights that are installed or in the cache and have a published accuracy on ImageNet, one of a network."""
    found = [here(name) for name in dict.fromkeys(e.variant for e in entries())]
    return [entry for entry in found if entry is not None and entry.classes == "imagenet" and "top1" in entry.published]


def networks_elsewhere(largest: int) -> list[Entry]:
    """The weights that a pull or an installation would add, for pictures of up to `largest` pixels, the best first."""
    mine = {entry.variant for entry in networks_here()}
    found = [e for e in entries() if e.variant not in mine and e.classes == "imagenet" and "top1" in e.published]
    fitting = [e for e in found if min(_parsed(e.preprocessing).output_size) <= largest]
    return sorted(fitting, key=lambda entry: -float(entry.published["top1"]))


def _candidate(name: str, weights: str, classes: int, tiny: bool) -> Candidate:
    if weights == "auto":
        entry = here(name)
        if entry is not None:
            return of_entry(entry, classes, tiny)
        weights = "none"
    if weights == "none":
        plain = _plain(name, classes)
        return Candidate(
            name, "none", _published(name, tiny), _parsed(plain.default_preprocessing), plain, _sheet(name)
        )
    start = find_pretrained(name, weights)
    assert start is not None
    plain = _plain(name, classes)
    return Candidate(name, weights, _published(name, tiny), _parsed(start.preprocessing), plain, _sheet(name))


def accuracy_of(entry: Entry, tiny: bool) -> float:
    """The published top-1 of weights, in percent; for tiny pictures what it is worth there; 0 where none is known."""
    published = float(entry.published.get("top1", 0.0))
    return published + TRANSFER_TO_TINY if tiny and published else published


def of_entry(entry: Entry, classes: int, tiny: bool) -> Candidate:
    """The network of weights of the catalogue."""
    plain, accuracy = _plain(entry.variant, classes), accuracy_of(entry, tiny)
    return Candidate(entry.variant, entry.name, accuracy, _parsed(entry.preprocessing), plain, _sheet(entry.variant))


def _plain(name: str, classes: int) -> Network:
    with torch.device("meta"):
        return create_model(name, num_classes=classes)


def _parsed(text: str) -> Preprocessing:
    return Preprocessing.parse(text)


def _sheet(name: str) -> VariantFacts:
    return load_sheet(find(name).family).variants[name]


def _published(name: str, tiny: bool) -> float:
    """The accuracy that the sheet has for a network which starts fresh: on CIFAR-10 for tiny pictures."""
    figures = _sheet(name).published
    if tiny:
        errors = [f.value for f in figures if f.data.startswith("CIFAR-10") and f.metric == "test error"]
        return 100 - min(errors) if errors else 0.0
    figures = tuple(f for f in figures if f.data == "ImageNet" and f.metric.startswith("top-1"))
    values = [100 - f.value if "error" in f.metric else f.value for f in figures]
    return min(values, default=0.0)  # several sources: the most modest


def short_side(samples: Sequence[Sample], looked_at: int = 64) -> float:
    """The median of the pictures' short sides in pixels, of a sample of them."""
    sides = []
    for sample in samples[:: max(1, len(samples) // looked_at)]:
        try:
            header = read_header(sample.path)
        except ImageError:  # it will be reported when it is opened
            continue
        sides.append(min(header.width, header.height))
    return median(sides) if sides else 224.0


def sizes_of(candidate: Candidate, pictures: float) -> list[int]:
    """The picture sizes to choose from, the largest first."""
    native = candidate.native
    if native <= TINY:  # made for pictures like these
        own = 4 * round(pictures / 4)
        return [own] if 20 <= own <= TINY else [native]
    smaller = range(SMALLEST, int(NEAR_NATIVE * native) + 1, STEP)
    channels = candidate.preprocessing.channels
    return [s for s in sorted({native, *smaller}, reverse=True) if takes_size(candidate.plain, channels, s, s)]


def options_of(candidate: Candidate, wish: Wish, split: Split, sizes: Sequence[int]) -> list[Option]:
    """Every one of these sizes and every recipe of a network, as far as the wishes allow."""
    asked = given_values(wish.recipe) | {k: v for k, v in wish.values.items() if v is not None}
    sizes = [int(asked["image_size"])] if "image_size" in asked else sizes
    pretrained = candidate.weights != "none"
    recipes: Iterable[Any] = ("finetune", "features") if pretrained else ("scratch",)
    if unused_when_frozen(asked):  # features would not do what is asked
        recipes = [recipe for recipe in recipes if recipe != "features"]
    found = []
    for recipe in [wish.recipe] if wish.recipe is not None else recipes:
        for size in sizes:
            chosen = recipe_of(candidate, recipe, split, {**wish.values, "image_size": size})
            found.append(_option(candidate, chosen, len(split.train), asked))
    return found


def recipe_of(candidate: Candidate, recipe: Any, split: Split, values: Mapping[str, Any]) -> Recipe:
    """The recipe as the run would have it."""
    facts = facts_of(candidate.plain, candidate.native, split, candidate.weights != "none")
    chosen = choose_recipe(recipe, facts, values)[0]
    return replace(chosen, precision="float32") if chosen.precision == "auto" else chosen


def _option(candidate: Candidate, recipe: Recipe, pictures: int, asked: Mapping[str, Any]) -> Option:
    pretrained = candidate.weights != "none"
    kind = "features" if recipe.frozen else "finetune" if pretrained else "scratch"
    if kind == "features":
        least = most = 1
    elif "epochs" in asked:
        least = most = recipe.epochs
    else:
        least = min(recipe.epochs, 2 if kind == "finetune" and pictures < SMALL_SET else 1)
        most = LONGER * recipe.epochs if kind == "finetune" else max(recipe.epochs, MOST_FRESH_EPOCHS)
        most = recipe.epochs if recipe.name == "paper" else most
    return Option(
        candidate.network,
        candidate.weights,
        recipe.image_size,
        candidate.native,
        recipe.name,
        kind,
        candidate.accuracy,
        recipe.epochs,
        least,
        most,
        recipe.head_first and pretrained,
        candidate.plain.num_features,
    )
