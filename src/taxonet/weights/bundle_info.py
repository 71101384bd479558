"""What a bundle says about its weights: the JSON under the key `taxonet`, checked in full (docs/bundle.md)."""

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from taxonet.errors import BundleError, nearest
from taxonet.weights.strict_json import MAX_TEXT, as_object, finite, parse_object, plain_object, short

METADATA_KEY = "taxonet"
MAX_CLASS_NAME = 1000

_KEYS = (
    "schema",
    "model",
    "classes",
    "preprocessing",
    "calibration",
    "metrics",
    "licence",
    "provenance",
    "created",
)
_RESERVED_OPTIONS = ("name", "num_classes")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class BundleInfo:
    """What a bundle says about its weights; every instance is valid, an invalid one raises BundleError.

    `options` are the keyword arguments of `create_model` without `num_classes`, which follows from `classes`.
    `threshold` is the probability under which a prediction counts as unsure, or None. `metrics` and
    `provenance` are free JSON objects. Tuples become lists, as JSON has no others.
    """

    schema: ClassVar[int] = 1

    variant: str
    classes: tuple[str, ...]
    preprocessing: str
    options: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    threshold: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=_now)

    def __post_init__(self) -> None:
        _check_text(self.variant, "model.variant")
        _check_text(self.preprocessing, "preprocessing")
        if self.licence is not None:
            _check_text(self.licence, "licence")
        _check_created(self.created)
        plain = {
            "classes": _checked_classes(self.classes),
            "options": _checked_options(self.options),
            "temperature": _checked_temperature(self.temperature),
            "threshold": _checked_threshold(self.threshold),
            "metrics": plain_object(self.metrics, "metrics"),
            "provenance": plain_object(self.provenance, "provenance"),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)  # the way to normalise a field of a frozen dataclass

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """The number of input channels: the option of that name, else 3."""
        return int(self.options.get("in_channels", 3))

    @property
    def create_options(self) -> dict[str, Any]:
        """The keyword arguments of `create_model(variant, ...)` that build the network of these weights."""
        return {"num_classes": self.num_classes, **self.options}

    def to_json(self) -> str:
        """The text that stands under the key `taxonet`; equal information gives equal text."""
        fields = {
            "schema": self.schema,
            "model": {"variant": self.variant, "options": self.options},
            "classes": self.classes,
            "preprocessing": self.preprocessing,
            "calibration": {"temperature": self.temperature, "threshold": self.threshold},
            "metrics": self.metrics,
            "licence": self.licence,
            "provenance": self.provenance,
            "created": self.created,
        }
        return json.dumps(fields, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "BundleInfo":
        """Read what `to_json` wrote; raises BundleError for anything else, a newer schema included."""
        fields = parse_object(text, f"the value of '{METADATA_KEY}'")
        _check_schema(fields)
        _check_keys(fields, _KEYS, "")
        model = as_object(fields["model"], "model")
        _check_keys(model, ("variant", "options"), "model.")
        calibration = as_object(fields["calibration"], "calibration")
        _check_keys(calibration, ("temperature", "threshold"), "calibration.")
        return cls(
            variant=model["variant"],
            options=model["options"],
            temperature=calibration["temperature"],
            threshold=calibration["threshold"],
            **{key: fields[key] for key in _KEYS if key not in ("schema", "model", "calibration")},
        )


def _check_schema(fields: Mapping[str, Any]) -> None:
    schema = fields.get("schema")
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise BundleError(f"'schema' must be a positive integer, not {short(schema)}")
    if schema > BundleInfo.schema:
        raise BundleError(f"written by a newer Taxonet (schema {schema}; this one reads {BundleInfo.schema})")


def _check_keys(fields: Mapping[str, Any], known: tuple[str, ...], prefix: str) -> None:
    for key in fields:
        if key not in known:
            raise BundleError(f"unknown key {short(prefix + key)}{nearest(key[:100], known)}")
    for key in known:
        if key not in fields:
            raise BundleError(f"the key '{prefix}{key}' is missing")


def _check_text(value: object, where: str, limit: int = MAX_TEXT) -> None:
    if not isinstance(value, str):
        raise BundleError(f"'{where}' must be text, not {short(value)}")
    if not value.strip():
        raise BundleError(f"'{where}' must not be empty")
    if len(value) > limit:
        raise BundleError(f"'{where}' has {len(value)} characters; at most {limit} are allowed")
    # control characters could steer a terminal, lone surrogates cannot be written
    if any(unicodedata.category(ch) in ("Cc", "Cs", "Zl", "Zp") for ch in value):
        raise BundleError(f"'{where}' holds a line break or control character: {short(value)}")


def _check_created(value: object) -> None:
    _check_text(value, "created")
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() != timedelta(0):
        raise BundleError(f"'created' must be a UTC time such as 2026-11-23T09:30:00Z, not {short(value)}")


def _checked_classes(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise BundleError(f"'classes' must be a list of at least one name, not {short(value)}")
    seen: dict[str, int] = {}
    for index, name in enumerate(value):
        _check_text(name, f"classes[{index}]", MAX_CLASS_NAME)
        if name in seen:
            raise BundleError(f"'classes' holds {short(name)} twice, at {seen[name]} and {index}")
        seen[name] = index
    return tuple(seen)


def _checked_options(value: object) -> dict[str, Any]:
    options = plain_object(value, "model.options")
    for key, option in options.items():
        where = f"model.options.{key[:100]}"
        if not key.isidentifier():
            raise BundleError(f"the option {short(key)} is not a name")
        if key in _RESERVED_OPTIONS:
            raise BundleError(f"'{where}' must be left out: it follows from 'classes' and 'model.variant'")
        parts = option if isinstance(option, list) else [option]
        if any(isinstance(part, (list, dict)) for part in parts):
            raise BundleError(f"'{where}' must be a number, text, true, false, null or a flat list of these")
    channels = options.get("in_channels", 3)
    if isinstance(channels, bool) or not isinstance(channels, int) or not 1 <= channels <= 4096:
        raise BundleError(f"'model.options.in_channels' must be an integer from 1, not {short(channels)}")
    return options


def _checked_temperature(value: object) -> float:
    number = finite(value, "calibration.temperature")
    if number <= 0:
        raise BundleError(f"'calibration.temperature' must be above 0, not {number}")
    return number


def _checked_threshold(value: object) -> float | None:
    if value is None:
        return None
    number = finite(value, "calibration.threshold")
    if not 0 <= number <= 1:
        raise BundleError(f"'calibration.threshold' must be null or a probability from 0 to 1, not {number}")
    return number
