"""What the verbs print: JSON alone on stdout, tables for people, counts in short form."""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxonet.errors import UsageError

if TYPE_CHECKING:
    from taxonet.data import Finding

SUFFIXES = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000, "b": 1_000_000_000}


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a file name that is no text, or a terminal that lacks the letters
        text = json.dumps(_finite(value), indent=2)
    print(text)


def _finite(value: Any) -> Any:
    """NaN and infinity have no JSON: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value


def check_page(path: Path | None) -> None:
    """Refuse a --html that could not be written, before the work is done."""
    if path and path.is_dir():
        raise UsageError(f"--html is {path}, which is a folder, and a file is wanted")
    if path and not path.absolute().parent.is_dir():
        raise UsageError(f"the folder {path.parent} of --html does not exist")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> None:
    """Columns of text; those in `right` are aligned to the right."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    for line in (header, *rows):
        cells = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        print("  ".join(cells).rstrip())


def print_findings(findings: Sequence["Finding"], before: str = "", most: int = 20) -> None:
    """The first files that could not be used, each with its reason."""
    for finding in findings[:most]:
        print(f"  {before}{finding.path}: {finding.reason}")
    if len(findings) > most:
        print(f"  … and {len(findings) - most:,} more (--json has all)")


def options_text(options: Mapping[str, Any]) -> str:
    """padding=symmetric, norm_eps=1e-05."""
    return ", ".join(f"{key}={value}" for key, value in options.items()) or "the network's defaults"


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """ "padding=symmetric" → {"padding": "symmetric"}; numbers, true and false become values."""
    options: dict[str, Any] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or not name or not text:
            raise UsageError(f"--option is '{word}', it must be a name and a value, as in padding=symmetric")
        if name in options:
            raise UsageError(f"--option gives {name} twice")
        options[name] = _value(text)
    return options


def _value(text: str) -> bool | int | float | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse_count(text: str | None, name: str) -> int | None:
    """ "5M" → 5000000."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgb]?)\s*", text.replace(",", "").replace("_", ""), re.IGNORECASE)
    if not match:
        raise UsageError(f"{name} is '{text}', it must be a number such as 5000000, 5M or 1.2G")
    return int(float(match[1]) * SUFFIXES[match[2].lower()])
