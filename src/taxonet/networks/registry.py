"""The names of all networks: one table a family, one function that builds any of them."""

import fnmatch
import functools
import importlib
import inspect
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from taxonet.errors import UsageError, nearest
from taxonet.networks.layers import Network
from taxonet.sheets import families

# how timm and torchvision call what has another name here
OTHER_WORDS = {
    "in_chans": "in_channels",
    "drop_rate": "dropout",
    "drop_path_rate": "stochastic_depth",
    "aux_logits": "aux_heads",
    "pretrained": "weights",
}
MAX_CLASSES = 1_000_000  # a classifier beyond this is a mistake or an attack, not a data set


@dataclass(frozen=True)
class Variant:
    """One row of a family's table."""

    name: str
    family: str
    network: type[Network]
    row: Mapping[str, Any]
    num_classes: int

    def options(self) -> dict[str, inspect.Parameter]:
        """The options that a caller may set: the constructor's keyword parameters that have a default."""
        return {
            name: p
            for name, p in inspect.signature(self.network).parameters.items()
            if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
        }


_VARIANTS: dict[str, Variant] = {}
_ALIASES: dict[str, str] = {}


def register(
    family: str,
    network: type[Network],
    rows: Mapping[str, Mapping[str, Any]],
    aliases: Mapping[str, str] = types.MappingProxyType({}),
    default_classes: Callable[[Mapping[str, Any]], int] = lambda row: 1000,
) -> None:
    """Enter a family's table; a name that stands already, or an alias without a target, is refused."""
    for name, row in rows.items():
        if name in _VARIANTS or name in _ALIASES:
            raise ValueError(f"the network '{name}' is registered twice")
        _VARIANTS[name] = Variant(name, family, network, dict(row), default_classes(row))
    for alias, target in aliases.items():
        if alias in _VARIANTS or alias in _ALIASES or target not in _VARIANTS:
            raise ValueError(f"the alias '{alias}' of '{target}' is taken or leads nowhere")
        _ALIASES[alias] = target


@functools.cache
def _load_families() -> None:
    for family in families():
        importlib.import_module(f"taxonet.networks.{family}")


def find(name: str) -> Variant:
    """The variant called `name`, by its own name or an alias, case and - for _ aside; another is a `UsageError`."""
    if not isinstance(name, str):
        raise UsageError(f"the name of a network is a text, not {name!r}")
    _load_families()
    known = {**{own: own for own in _VARIANTS}, **_ALIASES}
    target = known.get(name) or known.get(name.lower().replace("-", "_"))
    if target is None:
        raise UsageError(f"there is no network called '{name}'{_hint(name) or '; `taxonet models` lists them all'}")
    return _VARIANTS[target]


def _hint(name: str) -> str:
    """The names that go on where `name` ends (resnet20 → resnet20_cifar), else the nearest."""
    longer = [own for own in _VARIANTS if own.startswith(name.lower().replace("-", "_") + "_")]
    if longer:
        return f"; there {'is' if len(longer) == 1 else 'are'} {', '.join(longer[:4])}{' …' if len(longer) > 4 else ''}"
    return nearest(name, [*_VARIANTS, *_ALIASES])


def choices_of(variant: Variant) -> dict[str, list[Any]]:
    """The values that each option of a variant takes, where they can be listed."""
    hints = get_type_hints(variant.network.__init__)
    listed = {name: [False, True] if hints[name] is bool else list(get_args(hints[name])) for name in variant.options()}
    return {name: values for name, values in listed.items() if values}


def aliases_of(name: str) -> list[str]:
    """The other spellings of a variant."""
    _load_families()
    return [alias for alias, target in _ALIASES.items() if target == name]


def list_models(pattern: str = "*") -> list[str]:
    """The names of all networks that match a shell `pattern`, family by family in the order of their tables."""
    _load_families()
    matched = [name for name in _VARIANTS if fnmatch.fnmatch(name, pattern)]
    return matched or [target for alias, target in _ALIASES.items() if alias == pattern]


def create_model(name: str, num_classes: int | None = None, in_channels: int = 3, **options: Any) -> Network:
    """Build the network `name` with fresh weights.

    Args:
        name: a variant's name or a torchvision/timm alias, see `list_models`.
        num_classes: outputs of the classifier; None is the paper's number (1000, or 10 for CIFAR nets).
        in_channels: channels of the images, 3 for RGB and 1 for grey.
        **options: the family's options, such as `dropout` or `memory_efficient`; `taxonet info NAME` lists them.

    Raises:
        UsageError: an unknown name or option, or a value that the option does not take.
    """
    variant = find(name)
    classes = variant.num_classes if num_classes is None else num_classes
    _check_count("num_classes", classes, MAX_CLASSES)
    _check_count("in_channels", in_channels, 1024)
    hints = get_type_hints(variant.network.__init__)
    allowed = variant.options()
    for option, value in options.items():
        if option not in allowed:
            ours = OTHER_WORDS.get(option)
            hint = f"; here it is called '{ours}'" if ours else nearest(option, allowed)
            raise UsageError(f"{variant.name} has no option '{option}'{hint}")
        _check_option(option, value, hints[option])
    network = variant.network(classes, in_channels, **{**variant.row, **options})
    network.variant = variant.name
    network.options = {"num_classes": classes, "in_channels": in_channels, **options}
    return network


def _check_count(name: str, value: object, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise UsageError(f"{name} is {value!r}, it must be a whole number from 1 to {most:,}")


def _check_option(name: str, value: object, hint: Any) -> None:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            words = ", ".join(map(repr, get_args(hint)))
            raise UsageError(
                f"{name} is {value!r}, it must be one of {words}{nearest(str(value), map(str, get_args(hint)))}"
            )
    elif hint is bool:
        if not isinstance(value, bool):
            raise UsageError(f"{name} is {value!r}, it must be True or False")
    elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{name} is {value!r}, it must be a number")
    elif not 0 <= value < 1:  # dropout rates and eps
        raise UsageError(f"{name} is {value!r}, it must be at least 0 and below 1")
