"""Which recipe a run gets when the user names none, and why each value that came from the data is what it is."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from taxonet.errors import UsageError, nearest
from taxonet.networks.registry import find
from taxonet.sheets import RecipeFacts, load_sheet
from taxonet.training.balance import decide
from taxonet.training.recipe import Recipe, is_file_of_recipe, read_recipe

NAMED = ("finetune", "scratch", "paper", "features")
SMALL_SET = 5_000  # below this the statistics of a pretrained network are better than the set's own
SMALL_MAP = 96  # pixels; such pictures are shifted, not cropped and enlarged
LARGEST_BATCH = 256
MANY_STEPS = 10_000
BALANCING = ("balance", "balance_weights", "balance_beta")
UNSAID = "the paper's sheet does not say; Taxonet's default"
UNSAID_BY_NETWORK = "the paper's sheet does not say; the network's own"
FROZEN_USES = ("image_size", *BALANCING, "val_fraction", "seed")  # by a run that fits the classifier alone


@dataclass(frozen=True)
class Facts:
    """What a recipe depends on: the variant, its picture size, the number of training pictures, where it starts."""

    variant: str
    image_size: int
    pictures: int
    pretrained: bool
    norm_momentum: float | None  # of the network's batch norms; None where it has none
    class_counts: tuple[int, ...] = ()  # training pictures of each class
    on_gpu: bool = False  # whether it computes on a GPU


def choose_recipe(
    wanted: str | Path | Recipe | None, facts: Facts, overrides: Mapping[str, Any]
) -> tuple[Recipe, dict[str, str]]:
    """The recipe of a run and the reason for each value that was derived.

    Args:
        wanted: "finetune", "scratch", "paper", "features", a TOML file, a recipe, or None for finetune where there are
            weights to start from and scratch where there are none.
        facts: what the run is about.
        overrides: values that the user set; they win.

    Raises:
        UsageError: an unknown recipe, name or value.
    """
    overrides = {key: value for key, value in overrides.items() if value is not None}
    unknown = [key for key in overrides if key not in {spec.name for spec in fields(Recipe)}]
    if unknown:
        Recipe().with_values({unknown[0]: None})  # raises with the nearest name
    if wanted == "features" and overrides.get("frozen") is False:
        raise UsageError("the recipe features is a classifier on a frozen network, frozen must be true; see finetune")
    size = int(overrides.get("image_size", facts.image_size))
    reasons: dict[str, str] = {}
    if isinstance(wanted, Recipe):
        values = _as_values(wanted)
    elif wanted is not None and is_file_of_recipe(wanted):
        values = _as_values(read_recipe(Path(wanted)))
    else:
        name = str(wanted or ("finetune" if facts.pretrained else "scratch"))
        if wanted is None:
            reasons["name"] = (
                "there are weights to start from" if facts.pretrained else "there are no weights to start from"
            )
        values = _named(name, facts, size, overrides, reasons)
    for key in overrides:
        reasons.pop(key, None)
    recipe = Recipe(**{**values, **overrides})
    if recipe.frozen:
        _check_frozen_uses(recipe, overrides)
    _check_network_has(recipe, facts.variant)
    if recipe.balance == "auto":  # what is recorded says what was done
        word, reasons["balance"] = decide(facts.class_counts or (1,))
        recipe = replace(recipe, balance=word)
    return recipe, reasons


def unused_when_frozen(values: Iterable[str]) -> list[str]:
    """Which values of a recipe do nothing where the classifier alone is fitted."""
    return [name for name in values if name not in (*FROZEN_USES, "name", "frozen")]


def _check_frozen_uses(recipe: Recipe, overrides: Mapping[str, Any]) -> None:
    unused = unused_when_frozen(overrides) or (["teacher"] if recipe.teacher else [])
    if unused:
        raise UsageError(
            f"{unused[0]} does nothing in the recipe {recipe.name}, which fits the classifier alone on a frozen "
            f"network; it uses {', '.join(FROZEN_USES)}"
        )


def _check_network_has(recipe: Recipe, variant: str) -> None:
    """Refuse what the network does not have."""
    options = find(variant).options()
    if recipe.aux_heads and "aux_heads" not in options:
        raise UsageError(f"{variant} has no auxiliary heads, aux_heads must be false; GoogLeNet has them")
    if recipe.stochastic_depth and not has_stochastic_depth(variant):
        raise UsageError(
            f"{variant} has no stochastic depth, stochastic_depth must be 0; EfficientNet and NFNet have it"
        )


def has_stochastic_depth(variant: str) -> bool:
    """Whether a network can drop its blocks."""
    return "stochastic_depth" in find(variant).options()


def told(recipe: Recipe, reasons: Mapping[str, str]) -> list[str]:
    """The recipe for a reader, a value a line with its reason; for a frozen network only what is used."""
    used = ("name", "frozen", *(name for name in FROZEN_USES if recipe.balance != "none" or name not in BALANCING[1:]))
    lines = ["recipe:"]
    for name, value in asdict(recipe).items():
        if recipe.frozen and name not in used:
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        reason = f"    ({reasons[name]})" if name in reasons else ""
        lines.append(f"  {name:<20} {'none' if shown == '' else shown}{reason}")
    if recipe.accumulate > 1:
        size, times = recipe.batch_size, recipe.accumulate
        lines.append(f"  a step takes {size * times} pictures: {size} at once, {times} times")
    return lines


def _as_values(recipe: Recipe) -> dict[str, Any]:
    return {spec.name: getattr(recipe, spec.name) for spec in fields(recipe)}


def _named(name: str, facts: Facts, size: int, asked: Mapping[str, Any], reasons: dict[str, str]) -> dict[str, Any]:
    if name == "finetune":
        if not facts.pretrained:
            raise UsageError(f"the recipe finetune needs weights to start from, and there are none of {facts.variant}")
        return _finetune(facts, size, asked.get("epochs"), reasons)
    if name == "scratch":
        return _scratch(facts, size, asked.get("epochs"), reasons)
    if name == "paper":
        return _paper(facts, size, asked, reasons)
    if name == "features":
        return _features(facts, size, reasons)
    raise UsageError(
        f"there is no recipe '{name}', it must be {', '.join(NAMED)} or a .toml file{nearest(name, NAMED)}"
    )


def _common(facts: Facts, size: int) -> dict[str, Any]:
    momentum = {} if facts.norm_momentum is None else {"norm_momentum": facts.norm_momentum}
    rates = {name: default_rate(facts.variant, name) for name in ("dropout", "stochastic_depth")}
    return {"image_size": size, **rates, **momentum}


def _precision(facts: Facts, reasons: dict[str, str]) -> dict[str, Any]:
    """Mixed precision where it is faster: a GPU is measured when the run starts, a CPU is taken to be slower."""
    if facts.on_gpu:
        return {"precision": "auto"}
    reasons["precision"] = "on a CPU bfloat16 was slower when it was measured; --precision auto measures it here"
    return {}


def default_rate(variant: str, option: str) -> float:
    """The rate of `dropout` or `stochastic_depth` that a network has when nothing is said; 0 where it has none."""
    found = find(variant)
    known = found.options().get(option)
    return float(found.row.get(option, known.default)) if known else 0.0


def _finetune(facts: Facts, size: int, epochs: int | None, reasons: dict[str, str]) -> dict[str, Any]:
    small = facts.pictures < SMALL_SET
    if epochs is None:
        epochs = max(4, min(30, round(4_000 / facts.pictures)))
        reasons["epochs"] = f"about 4,000 pictures seen, from {facts.pictures:,}, within 4 to 30 epochs"
    reasons["norm_statistics"] = (
        f"{facts.pictures:,} pictures are too few to replace the statistics of the pretrained network"
        if small
        else f"{facts.pictures:,} pictures carry their own statistics"
    )
    return {
        **_common(facts, size),
        **_precision(facts, reasons),
        "name": "finetune",
        "epochs": epochs,
        "batch_size": 16 if small else 32,
        "augmentation": f"random_resized_crop({size}, scale=(0.35, 1.0)) | flip | trivial_augment | erase(0.25)",
        "balance": "auto",
        "head_first": True,
        "norm_statistics": "frozen" if small else "train",
        "label_smoothing": 0.1,
        "ema_decay": 0.97 if small else 0.998,
        "optimizer": "adamw",
        "lr": 3e-4 if small else 5e-4,
        "weight_decay": 0.02,
        "schedule": "cosine",
        "warmup_epochs": min(1.0, epochs / 4),
    }


def _features(facts: Facts, size: int, reasons: dict[str, str]) -> dict[str, Any]:
    if not facts.pretrained:
        raise UsageError(f"the recipe features needs weights to start from, and there are none of {facts.variant}")
    reasons["frozen"] = "only the classifier is fitted, on features that are extracted once"
    plain = f"resize({size}) | center_crop({size})"
    return {
        "name": "features",
        "image_size": size,
        "frozen": True,
        "epochs": 1,
        "augmentation": plain,
        "balance": "auto",
    }


def _scratch(facts: Facts, size: int, epochs: int | None, reasons: dict[str, str]) -> dict[str, Any]:
    if epochs is None:
        epochs = max(10, min(100, round(60_000 / facts.pictures)))
        reasons["epochs"] = f"about 60,000 pictures seen, from {facts.pictures:,}, within 10 to 100 epochs"
    steps = math.ceil(facts.pictures / 32) * epochs
    values = _common(facts, size)
    if facts.norm_momentum is not None and facts.norm_momentum < 0.1 and facts.norm_momentum * steps < 50:
        values["norm_momentum"] = 0.1  # running statistics would still remember the initial zero and one
        reasons["norm_momentum"] = f"{steps:,} steps are too few for the network's own {facts.norm_momentum}"
    rate = 0.05
    if facts.norm_momentum is None:
        rate = 0.01
        reasons["lr"] = f"{facts.variant} has no batch norm"
    small_map = size <= SMALL_MAP
    shift = f"resize({size}) | random_crop({size}, padding={max(1, size // 8)}) | flip"
    crop = f"random_resized_crop({size}, scale=(0.25, 1.0)) | flip | color_jitter(0.2)"
    return {
        **values,
        **_precision(facts, reasons),
        "name": "scratch",
        "epochs": epochs,
        "balance": "auto",
        "augmentation": shift if small_map else crop,
        "label_smoothing": 0.0 if small_map else 0.1,
        "ema_decay": 0.98 if steps < MANY_STEPS else 0.999,
        "optimizer": "sgd",
        "lr": rate,
        "nesterov": True,
        "weight_decay": 5e-4 if small_map else 5e-5,
        "schedule": "cosine",
        "warmup_epochs": min(3.0, epochs / 10),
    }


def _paper(facts: Facts, size: int, asked: Mapping[str, Any], reasons: dict[str, str]) -> dict[str, Any]:
    """The family's own recipe; the rate follows another batch linearly, the warm-up other epochs.

    What the sheet does not say is Taxonet's, and its reason says so. Small pictures get the sheet's `cifar` recipe
    where there is one, others `imagenet`; a recipe for SVHN is a record, no run is given it.
    """
    found = find(facts.variant)
    sheet = load_sheet(found.family)
    setting = "cifar" if size <= SMALL_MAP and "cifar" in sheet.recipes else "imagenet"
    published = sheet.recipes[setting]
    theirs = f"the {setting} recipe of {sheet.title}"
    values = _common(facts, size) | {"name": "paper"}
    said = {
        spec.name: getattr(published, spec.name) for spec in fields(published) if spec.name not in ("source", "note")
    }
    values |= {name: value for name, value in said.items() if value is not None}
    unused = _unused_by(published.optimizer, published.schedule or Recipe().schedule)
    unused |= set() if "aux_heads" in found.options() else {"aux_heads"}
    reasons |= {name: UNSAID if value is None else theirs for name, value in said.items() if name not in unused}
    if published.dropout is None:
        reasons["dropout"] = UNSAID_BY_NETWORK
    values |= _paper_batch(published, facts, asked, reasons)
    if published.epochs and published.warmup_epochs and "epochs" in asked:
        share = asked["epochs"] / published.epochs
        values["warmup_epochs"] = published.warmup_epochs * min(1.0, share)
        reasons["warmup_epochs"] = f"the recipe's {published.warmup_epochs} for {published.epochs} epochs, scaled"
    augmentation = published.augmentation or f"random_resized_crop({size}) | flip"
    values["augmentation"] = augmentation.replace("(224", f"({size}").replace("(32", f"({size}")
    if "resize(256)" in augmentation:
        values["augmentation"] = values["augmentation"].replace("resize(256)", f"resize({round(size * 256 / 224)})")
    elif "random_crop" in augmentation:
        values["augmentation"] = f"resize({size}) | {values['augmentation']}"
    return values


def _paper_batch(
    published: RecipeFacts, facts: Facts, asked: Mapping[str, Any], reasons: dict[str, str]
) -> dict[str, Any]:
    """The batch that fits, and the rate for it."""
    batch = published.batch_size or LARGEST_BATCH
    fitting = int(asked.get("batch_size", max(1, min(batch, LARGEST_BATCH, facts.pictures))))
    if fitting == batch or published.lr is None:
        return {"batch_size": fitting}
    if published.batch_size is not None:
        reasons["batch_size"] = f"the recipe's {batch:,} does not fit {facts.pictures:,} pictures or a usual memory"
    reasons["lr"] = f"{published.lr} scaled with the batch, {fitting}/{batch:,}"
    return {"batch_size": fitting, "lr": published.lr * fitting / batch}


def _unused_by(optimizer: str, schedule: str) -> set[str]:
    """The values of a recipe that do nothing with this optimiser and schedule."""
    of_optimizer = {"rmsprop_tf": {"alpha", "eps"}, "sgd": {"nesterov"}}
    of_schedule = {"step": {"milestones", "gamma"}, "exponential": {"decay_rate", "decay_epochs"}}
    return {
        name
        for used, chosen in ((of_optimizer, optimizer), (of_schedule, schedule))
        for word, names in used.items()
        if word != chosen
        for name in names
    }
