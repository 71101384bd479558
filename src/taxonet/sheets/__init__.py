"""The fact sheets, one TOML a family: the paper, published figures, counts to reproduce, divergences and recipes.

`load_sheet("densenet").variants["densenet121"].params` is 7978856. A sheet is our own data, so a key that is unknown,
missing or of the wrong type is a `ValueError` that names its place.
"""

import functools
import tomllib
from dataclasses import MISSING, dataclass, field, fields
from importlib import resources
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from taxonet.errors import UsageError, nearest

Source = Literal["paper", "authors", "repository", "unverified"]


@dataclass(frozen=True)
class Record:
    """A table of a sheet: its fields are the table's keys, those with a default may be absent."""


@dataclass(frozen=True)
class Paper(Record):
    """The paper that describes a family; `arxiv` is the identifier, as in 1608.06993."""

    title: str
    authors: str
    venue: str
    year: int
    arxiv: str


@dataclass(frozen=True)
class Figure(Record):
    """A published number; `source` is who published it, "unverified" where it was not read at its source."""

    data: str  # the data set, "" for figures of the network itself
    metric: str
    value: float
    unit: str
    source: Source


@dataclass(frozen=True)
class Cost(Record):
    """What a network costs at some setting; `macs_m` is in million multiply-adds, for one image."""

    macs_m: float | None = None

    @property
    def macs(self) -> int | None:
        """Multiply-adds of convolutions and linear layers, as exact as the sheet's `macs_m`; None where it has none."""
        return None if self.macs_m is None else round(self.macs_m * 1e6)


@dataclass(frozen=True)
class Count(Cost):
    """What a variant costs at another setting; None means as in the variant itself, `options` are the network's."""

    params: int | None = None
    input_size: int | None = None
    channels: int | None = None
    num_classes: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Port(Record):
    """The same network in another library, and the `options` that make ours compute the same function."""

    library: Literal["torchvision", "timm"]
    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class VariantFacts(Cost):
    """One variant: what it costs at its own setting, and what has been published about it."""

    name: str
    input_size: int
    channels: int
    num_classes: int
    params: int
    published: tuple[Figure, ...] = ()
    counts: tuple[Count, ...] = ()
    ports: tuple[Port, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Divergence(Record):
    """A point on which paper, code and ports differ, and what Taxonet does."""

    topic: str
    paper: str
    others: str
    taxonet: str


@dataclass(frozen=True)
class NotReproduced(Record):
    """A published row or figure that the network as described does not give, or that was left out, and why."""

    row: str
    published: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RecipeFacts(Record):
    """How the paper trains; None where it does not say. `milestones` are fractions of the epochs, `agc` is the λ of
    adaptive gradient clipping, `mixup` and `cutmix` are the α of Beta(α, α)."""

    optimizer: Literal["sgd", "rmsprop_tf"]
    source: Source
    lr: float | None = None
    momentum: float | None = None
    nesterov: bool | None = None
    alpha: float | None = None
    eps: float | None = None
    weight_decay: float | None = None
    decay_norm_and_bias: bool | None = None
    decay_depthwise: bool | None = None
    agc: float | None = None
    batch_size: int | None = None
    epochs: int | None = None
    schedule: Literal["step", "exponential", "cosine", "linear"] | None = None
    milestones: tuple[float, ...] | None = None
    gamma: float | None = None
    decay_rate: float | None = None
    decay_epochs: float | None = None
    warmup_epochs: int | None = None
    label_smoothing: float | None = None
    mixup: float | None = None
    cutmix: float | None = None
    ema_decay: float | None = None
    dropout: float | None = None
    aux_heads: bool | None = None
    augmentation: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Sheet:
    """The facts of one family; variants by name, recipes by data set: `cifar` and `imagenet`, which `train` takes, and
    `svhn`, which is a record only.

    `idea` is two paragraphs with an empty line between: what the family is about, and how its networks are built.
    """

    family: str
    title: str
    idea: str
    paper: Paper
    variants: dict[str, VariantFacts]
    divergences: tuple[Divergence, ...]
    recipes: dict[str, RecipeFacts]
    not_reproduced: tuple[NotReproduced, ...]


def families() -> list[str]:
    """The families that have a sheet, in alphabetical order."""
    names = (entry.name for entry in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


@functools.cache
def load_sheet(family: str) -> Sheet:
    """The sheet of `family`, read once; an unknown family raises `UsageError`."""
    if family not in families():
        raise UsageError(f"there is no sheet for the family '{family}'{nearest(family, families())}")
    return parse_sheet(resources.files(__name__).joinpath(f"{family}.toml").read_text("utf-8"), family)


def parse_sheet(text: str, family: str) -> Sheet:
    """The sheet in `text`, which must describe `family`; a malformed one raises `ValueError`."""
    file = _record(_File, tomllib.loads(text), family)
    if file.family != family:
        raise ValueError(f"the sheet '{family}' says that its family is '{file.family}'")
    variants = {facts.name: facts for facts in file.variant}
    if len(variants) < len(file.variant):
        raise ValueError(f"the sheet '{family}' names a variant twice")
    recipes, missing = file.recipe, file.not_reproduced
    return Sheet(file.family, file.title, file.idea, file.paper, variants, file.divergence, recipes, missing)


@dataclass(frozen=True)
class _File(Record):
    family: str
    title: str
    idea: str
    paper: Paper
    variant: tuple[VariantFacts, ...]
    divergence: tuple[Divergence, ...]
    recipe: dict[str, RecipeFacts]
    not_reproduced: tuple[NotReproduced, ...] = ()


R = TypeVar("R", bound=Record)


def _record(kind: type[R], table: object, where: str) -> R:
    if not isinstance(table, dict):
        raise ValueError(f"{where} is {table!r}, it must be a table")
    hints = get_type_hints(kind)
    for key in table:
        if key not in hints:
            raise ValueError(f"{where} has an unknown key '{key}'{nearest(key, hints)}")
    values = {}
    for spec in fields(kind):
        if spec.name in table:
            values[spec.name] = _value(hints[spec.name], table[spec.name], f"{where}.{spec.name}")
        elif spec.default is MISSING and spec.default_factory is MISSING:
            raise ValueError(f"{where} lacks the key '{spec.name}'")
    return kind(**values)


def _value(kind: Any, value: object, where: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):  # X | None: TOML has no null, so it is an X
        return _value(args[0], value, where)
    if isinstance(kind, type) and issubclass(kind, Record):
        return _record(kind, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _value(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind and not (origin is Literal and value in args):
        rule = f"one of {', '.join(args)}" if origin is Literal else (origin or kind).__name__
        raise ValueError(f"{where} is {value!r}, it must be {rule}")
    return value
