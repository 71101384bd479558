"""The recipe: every hyper-parameter of a training run as one value, readable from and written to TOML."""

import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taxonet.errors import UsageError, nearest

OPTIMIZERS = ("sgd", "adamw", "rmsprop_tf")
SCHEDULES = ("constant", "cosine", "linear", "step", "exponential")
NORM_STATISTICS = ("train", "frozen")
PRECISIONS = ("float32", "bfloat16", "auto")
BALANCES = ("none", "sampling", "loss", "auto")


def _range(low: float, high: float) -> dict[str, Any]:
    return {"low": low, "high": high}


@dataclass(frozen=True)
class Recipe:
    """A training recipe; a wrong value raises `UsageError` with the rule."""

    name: str = "scratch"
    epochs: int = field(default=30, metadata=_range(1, 100_000))
    batch_size: int = field(default=32, metadata=_range(1, 65_536))
    accumulate: int = field(default=1, metadata=_range(1, 65_536))  # a step takes batch_size × accumulate pictures
    image_size: int = field(default=224, metadata=_range(8, 4096))
    augmentation: str = "random_resized_crop(224) | flip"
    mixup: float = field(default=0.0, metadata=_range(0.0, 100.0))  # α of Beta(α, α), 0 is off
    cutmix: float = field(default=0.0, metadata=_range(0.0, 100.0))  # α; with mixup a coin decides for each batch
    balance: str = field(default="none", metadata={"choices": BALANCES})
    balance_weights: str = field(default="effective", metadata={"choices": ("effective", "inverse")})  # balance = loss
    balance_beta: float = field(default=0.999, metadata=_range(0.0, 0.9999999))  # effective: β
    frozen: bool = False  # fit the classifier on the features of the frozen network and nothing else
    frozen_stages: int = field(default=0, metadata=_range(0, 1000))  # the first so many stages stay as they came
    head_first: bool = False  # fit the classifier on the frozen network's features before anything else
    norm_statistics: str = field(default="train", metadata={"choices": NORM_STATISTICS})
    norm_momentum: float = field(default=0.1, metadata=_range(0.0, 1.0))
    sync_norm: bool = True  # several processes: statistics of the whole batch, not of each process's part
    dropout: float = field(default=0.0, metadata=_range(0.0, 0.99))
    stochastic_depth: float = field(default=0.0, metadata=_range(0.0, 0.99))  # where the network has it
    aux_heads: bool = False  # train with the network's auxiliary classifiers, where it has any (GoogLeNet)
    label_smoothing: float = field(default=0.0, metadata=_range(0.0, 0.99))
    teacher: str = ""  # a bundle or a name of the catalogue that knows the classes; "" is none
    distill_temperature: float = field(default=4.0, metadata=_range(0.01, 1000.0))
    distill_weight: float = field(default=0.5, metadata=_range(0.0, 1.0))  # of the teacher; the labels have the rest
    ema_decay: float = field(default=0.0, metadata=_range(0.0, 0.999999))
    optimizer: str = field(default="sgd", metadata={"choices": OPTIMIZERS})
    lr: float = field(default=0.05, metadata=_range(0.0, 1000.0))
    momentum: float = field(default=0.9, metadata=_range(0.0, 0.9999))
    nesterov: bool = True
    alpha: float = field(default=0.9, metadata=_range(0.0, 0.9999))  # RMSprop: decay of the mean square
    eps: float = field(default=1e-8, metadata=_range(0.0, 10.0))
    weight_decay: float = field(default=1e-4, metadata=_range(0.0, 1.0))
    decay_norm_and_bias: bool = False  # gains too
    decay_depthwise: bool = True
    clip_norm: float = field(default=0.0, metadata=_range(0.0, 1e9))  # largest norm of all gradients, 0 is off
    agc: float = field(default=0.0, metadata=_range(0.0, 1.0))  # adaptive gradient clipping: λ, 0 is off
    schedule: str = field(default="cosine", metadata={"choices": SCHEDULES})
    warmup_epochs: float = field(default=0.0, metadata=_range(0.0, 100_000))
    milestones: tuple[float, ...] = (0.5, 0.75)  # step: fractions of the epochs
    gamma: float = field(default=0.1, metadata=_range(0.0, 1.0))
    decay_rate: float = field(default=0.97, metadata=_range(0.0, 1.0))  # exponential: factor …
    decay_epochs: float = field(default=1.0, metadata=_range(1e-6, 100_000))  # … every so many epochs
    patience: int = field(default=0, metadata=_range(0, 100_000))  # epochs without a lower validation loss, 0 is off
    precision: str = field(default="float32", metadata={"choices": PRECISIONS})
    channels_last: bool = True
    compile: bool = False
    val_fraction: float = field(default=0.2, metadata=_range(1e-6, 0.999999))
    seed: int = field(default=0, metadata=_range(0, 2**31 - 1))

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            value = _converted(spec, getattr(self, spec.name))
            object.__setattr__(self, spec.name, value)
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise UsageError("nesterov needs a momentum above 0")
        if self.head_first and self.frozen:
            raise UsageError("head_first and frozen exclude each other: frozen fits nothing but the classifier")

    def with_values(self, values: Mapping[str, Any]) -> "Recipe":
        """A copy with other values; an unknown name raises `UsageError` with the nearest one."""
        known = [spec.name for spec in dataclasses.fields(self)]
        for name in values:
            if name not in known:
                raise UsageError(f"a recipe has no value '{name}'{nearest(name, known)}")
        return dataclasses.replace(self, **values)

    def to_toml(self) -> str:
        """The recipe as TOML, one value a line; `from_toml` reads it back equal."""
        values = dataclasses.asdict(self)
        return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())

    @classmethod
    def from_toml(cls, text: str, source: str = "the recipe") -> "Recipe":
        """Read a recipe; values that are left out keep their defaults."""
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{source} is not valid TOML: {error}") from error
        return cls().with_values(values)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file."""
    try:
        return Recipe.from_toml(path.read_text("utf-8"), str(path))
    except FileNotFoundError as error:
        beside = [file.name for file in path.absolute().parent.glob("*.toml")]
        raise UsageError(f"the recipe {path} does not exist{nearest(path.name, beside)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the recipe {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def is_file_of_recipe(source: str | os.PathLike[str]) -> bool:
    """Whether a recipe is asked for by its file: one that is there under any name, or a name that ends in .toml."""
    return str(source).endswith(".toml") or Path(source).is_file()


def given_values(source: str | os.PathLike[str] | Recipe | None) -> dict[str, Any]:
    """The values that a recipe fixes: all of a `Recipe`, those that a TOML file names, none of a recipe by name."""
    if isinstance(source, Recipe):
        return dataclasses.asdict(source)
    if source is None or not is_file_of_recipe(source):
        return {}
    whole = read_recipe(Path(source))
    return {name: getattr(whole, name) for name in tomllib.loads(Path(source).read_text("utf-8"))}


def _converted(spec: "dataclasses.Field[Any]", value: Any) -> Any:
    kind = spec.type if isinstance(spec.type, type) else type(spec.default)
    if kind is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(v, int | float) and 0 <= v <= 1 for v in value):
            raise UsageError(f"{spec.name} is {value!r}, it must be a list of fractions from 0 to 1")
        return tuple(float(v) for v in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise UsageError(f"{spec.name} is {value!r}, it must be {words[kind]}")
    choices = spec.metadata.get("choices")
    if choices and value not in choices:
        raise UsageError(
            f"{spec.name} is '{value}', it must be one of {', '.join(choices)}{nearest(str(value), choices)}"
        )
    low, high = spec.metadata.get("low"), spec.metadata.get("high")
    if low is not None and high is not None and not low <= value <= high:
        raise UsageError(f"{spec.name} is {value}, it must be from {low:,} to {high:,}")
    return value
