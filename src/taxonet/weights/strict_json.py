"""JSON of strangers, read and checked strictly: whatever stands in it, the answer is a value or a BundleError."""

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from taxonet.errors import BundleError

MAX_TEXT = 4096
MAX_DEPTH = 12
MAX_INTEGER = 2**63 - 1


def parse_object(text: str, where: str) -> dict[str, Any]:
    """Parse a JSON object more strictly than `json`: no duplicate keys, no NaN or Infinity; BundleError."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise BundleError(f"{where} is nested too deeply") from error
    except ValueError as error:  # a syntax error, or an integer of thousands of digits
        raise BundleError(f"{where} is not valid JSON") from error
    if not isinstance(value, dict):
        raise BundleError(f"{where} must be a JSON object, not {short(value)}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise BundleError(f"the key {short(key)} stands twice in one JSON object")
        fields[key] = value
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise BundleError(f"the number {name} is not JSON")


def finite(value: object, where: str) -> float:
    """A finite number of usual size; raises BundleError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BundleError(f"'{where}' must be a number, not {short(value)}")
    if not abs(value) <= MAX_INTEGER:  # false for NaN too
        raise BundleError(f"'{where}' must be a finite number of usual size, not {short(value)}")
    return float(value)


def as_object(value: object, where: str) -> dict[str, Any]:
    """A copy of an object whose keys are text; raises BundleError for anything else."""
    if not isinstance(value, Mapping):
        raise BundleError(f"'{where}' must be an object of names and values, not {short(value)}")
    for key in value:
        if not isinstance(key, str) or not is_unicode(key):
            raise BundleError(f"'{where}' has the key {short(key)}, which is not text")
    return dict(value)


def plain_object(value: object, where: str) -> dict[str, Any]:
    """A copy of an object made of what JSON knows; raises BundleError for anything else."""
    return {key: _plain(part, f"{where}.{key[:100]}", 2) for key, part in as_object(value, where).items()}


def _plain(value: object, where: str, depth: int) -> Any:
    """A copy of `value` made of what JSON knows; raises BundleError when it holds something else."""
    if depth > MAX_DEPTH:
        raise BundleError(f"{short(where)} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        parts = as_object(value, where).items()
        return {key: _plain(part, f"{where}.{key[:100]}", depth + 1) for key, part in parts}
    if isinstance(value, (list, tuple)):
        return [_plain(part, f"{where}[{index}]", depth + 1) for index, part in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if not is_unicode(value):
            raise BundleError(f"{short(where)} is not valid Unicode text")
        return value
    if isinstance(value, int) and abs(value) <= MAX_INTEGER:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    raise BundleError(f"{short(where)} cannot be stored: {short(value)} is not a finite JSON value")


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8: no lone surrogates."""
    return not any("\ud800" <= ch <= "\udfff" for ch in text)


def short(value: object, limit: int = 60) -> str:
    """A value on one printable line, cut to a readable length, for an error sentence."""
    if isinstance(value, (Mapping, list, tuple)):
        return f"a {'list' if isinstance(value, (list, tuple)) else 'mapping'} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_INTEGER:
        return "a number beyond 64 bits"
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if not isinstance(value, str):
        return f"a {type(value).__name__}"
    return repr(value if len(value) <= limit else value[:limit] + "…")
