"""The rule by which a budget of time becomes a network, a picture size, a recipe and its epochs.

It is a pure function of what was measured. Every option (network, size, recipe) gets as many epochs as fit, and a
*worth* in points of accuracy, which only ranks the options and promises nothing:

    worth = the published top-1 of the network
            - 5 points for each halving of the size below the one it was published for
              (MobileNet v1 at 224 and 128 pixels: 70.6 and 64.4 %, its Table 7, that is 7.7; ResNet-50: 77.0 and
              73.3 %, Touvron et al., NeurIPS 2019, from memory, 4.6; fine-tuning on few classes loses less)
            - what too little training costs, which depends on the recipe:
              features: 5 points, finetune: 5 points x exp(-2.5 x the share of the recipe's own epochs that fits),
              scratch: the published figure x h / (h + pictures seen), where h is what brings half of it: 70,000 for
              networks of tiny pictures, 500,000 for others, about as CIFAR-10 and ImageNet curves run

A better network on ImageNet is a better one after fine-tuning (Kornblith et al., CVPR 2019), hence the first term. The
option of the highest worth is taken, of two alike the quicker one.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from taxonet.training.duration import spoken

POINTS_A_HALVING = 5.0
FEATURES_COST, FINETUNE_COST, FINETUNE_RATE = 5.0, 5.0, 2.5
HALF_WAY, HALF_WAY_TINY, TINY = 500_000, 70_000, 48  # pictures seen, and pixels
MARGIN = 0.94  # of what is left is planned for; the deadline needs air, and a pace is never constant
HEAD_PICTURES = 20_000  # see `training/head.py`
# Regressions of the cross-validated search (`training/head.py`), and the steps of each: 12 to 64 at 1,600 pictures.
FITS, FIT_STEPS = 61, 45


@dataclass(frozen=True)
class Counts:
    """Pictures of the run, and classes."""

    train: int
    val: int
    test: int
    classes: int


@dataclass(frozen=True)
class Rates:
    """Seconds of each piece of work, for one network at one size.

    `fit` is one step of logistic regression on the features of all training pictures, over their classes.
    `decode`, `answer`, `feature` and `step` are for one picture: opened once; validated from its file; taken through
    the frozen network; trained on, augmentation and optimiser included. `save` is a checkpoint, `begin` what comes
    once: building, first step. `answer_measured` and `step_measured` say what is not an estimate by multiply-adds.
    """

    decode: float
    answer: float
    feature: float
    step: float
    save: float
    begin: float
    fit: float = 0.0
    answer_measured: bool = False
    step_measured: bool = False


@dataclass(frozen=True)
class Option:
    """A network, a size and a recipe that could be trained.

    `epochs` are the recipe's own, `least` and `most` bound what may be chosen; `accuracy` is the published one in
    percent, 0 where there is none and the user chose the network. `features` are those of the classifier.
    """

    network: str
    weights: str
    size: int
    native: int
    recipe: str
    kind: str  # "features", "finetune" or "scratch": which cost of too little training applies
    accuracy: float
    epochs: int
    least: int
    most: int
    head_first: bool
    features: int


@dataclass(frozen=True)
class Row:
    """An option judged: the epochs that fit (0: none), the seconds they need, its worth, and why it is not possible."""

    option: Option
    rates: Rates
    epochs: int
    seconds: float
    worth: float
    terms: str
    obstacle: str = ""

    @property
    def measured(self) -> bool:
        """Whether what it needs was measured."""
        return self.rates.answer_measured and (self.option.kind == "features" or self.rates.step_measured)

    @property
    def images_per_second(self) -> float:
        """Of training, or of the frozen network's features."""
        return 1 / max(self.rates.feature if self.option.kind == "features" else self.rates.step, 1e-9)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        option = self.option
        return {
            "network": option.network,
            "weights": option.weights,
            "image_size": option.size,
            "recipe": option.recipe,
            "images_per_second": round(self.images_per_second, 2),
            "measured": self.measured,
            "epochs": self.epochs,
            "recipe_epochs": option.epochs,
            "seconds": round(self.seconds, 1),
            "worth": round(self.worth, 2),
            "terms": self.terms,
            "obstacle": self.obstacle,
        }


def needed(option: Option, rates: Rates, counts: Counts, epochs: int, finish: float) -> float:
    """Seconds from here to the end of a run; `finish` are those of the report."""
    pictures = counts.train + counts.val + counts.test
    once = rates.begin + rates.decode * pictures + rates.answer * counts.test + finish
    if option.kind == "features":
        return once + rates.feature * counts.train + FITS * FIT_STEPS * rates.fit + rates.answer * counts.val
    if option.head_first:
        head = min(counts.train, HEAD_PICTURES)
        once += rates.feature * head + FIT_STEPS * rates.fit * head / counts.train
    return once + epochs * (rates.step * counts.train + rates.answer * counts.val + rates.save)


def judge(option: Option, rates: Rates, counts: Counts, left: float, finish: float) -> Row:
    """How many epochs of an option fit into `left` seconds, and what it is worth with them."""
    within = MARGIN * left
    first = needed(option, rates, counts, option.least, finish)
    if first > within:
        what = "this" if option.kind == "features" else f"{option.least} epoch{'s' if option.least > 1 else ''}"
        obstacle = f"{what} would take {spoken(first)}, {spoken(max(0, within))} are left"
        return Row(option, rates, 0, first, -math.inf, "", obstacle)
    epochs = option.least
    if option.most > option.least:
        one = needed(option, rates, counts, option.least + 1, finish) - first
        epochs = min(option.most, option.least + int((within - first) / max(one, 1e-9)))
    worth, terms = worth_of(option, epochs, counts)
    return Row(option, rates, epochs, needed(option, rates, counts, epochs, finish), worth, terms)


def worth_of(option: Option, epochs: int, counts: Counts) -> tuple[float, str]:
    """The points of an option with so many epochs, and how they come about."""
    small = POINTS_A_HALVING * max(0.0, math.log2(option.native / option.size))
    if option.kind == "features":
        short, why = FEATURES_COST, "only the classifier is fitted"
    elif option.kind == "finetune":
        share = epochs / option.epochs
        short, why = FINETUNE_COST * math.exp(-FINETUNE_RATE * share), f"{epochs} of {option.epochs} epochs"
    else:
        seen = max(1, epochs * counts.train)
        half = HALF_WAY_TINY if option.native <= TINY else HALF_WAY
        short = (option.accuracy or 100.0) * half / (half + seen)
        why = f"{seen:,} pictures seen, from fresh weights"
    terms = [f"published {option.accuracy:.1f}"] if option.accuracy else []
    terms += [f"- {small:.1f} ({option.size} pixels, not {option.native})"] if small else []
    terms += [f"- {short:.1f} ({why})"]
    return option.accuracy - small - short, " ".join(terms)


def best_of(rows: Iterable[Row]) -> Row | None:
    """The row of the highest worth, of two alike the quicker one; None where nothing fits."""
    possible = [row for row in rows if not row.obstacle]
    return max(possible, key=lambda row: (row.worth, -row.seconds), default=None)
