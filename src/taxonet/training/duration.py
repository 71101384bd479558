"""Times as a user writes and reads them: 90s, 10m, 1h30m."""

import math
import re
from typing import Any

from taxonet.errors import UsageError

SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}
SHORTEST, LONGEST = 10.0, 30 * 86_400.0
_FORM = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_WORDS = re.compile(r"(\d+(?:\.\d+)?)\s*(hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)")
_RULE = "a time with its unit: 90s, 10m, 1h30m"


def parse_duration(text: Any, name: str = "budget") -> float:
    """The seconds of `90s`, `10m`, `1h30m` or `2h`.

    A number without a unit is refused: some would mean minutes, others seconds.

    Raises:
        UsageError: another spelling, or a time below 10 seconds or above 30 days.
    """
    word = str(text).strip().lower()
    found = _FORM.fullmatch(word)
    if not word or found is None:
        raise UsageError(f"{name} is '{text}', it must be {_RULE}{_suggestion(word)}")
    seconds = sum(float(part) * unit for part, unit in zip(found.groups(), SECONDS.values(), strict=True) if part)
    if not SHORTEST <= seconds <= LONGEST:
        raise UsageError(f"{name} is '{text}', it must be from 10s to {LONGEST / 3600:.0f}h")
    return seconds


def _suggestion(word: str) -> str:
    if re.fullmatch(r"\d+(\.\d+)?", word):
        return f"; did you mean '{word}s' or '{word}m'?"
    if (clock := re.fullmatch(r"(\d+):(\d\d)(?::(\d\d))?", word)) is not None:
        numbers = [int(number) for number in clock.groups() if number]
        spelt = "".join(f"{n}{unit}" for n, unit in zip(numbers, "hms"[3 - len(numbers) :], strict=True) if n)
    else:
        spelt = "".join(number + unit[0] for number, unit in _WORDS.findall(word))
    return f"; did you mean '{spelt}'?" if spelt else ""


def spoken(seconds: float) -> str:
    """`541.2` → `9m01s`; what a user can write, too."""
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole}s"
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if rest else f"{minutes}m"


def enough(seconds: float) -> str:
    """A round time that is not below `seconds`: the budget that a sentence may name."""
    step = 10 if seconds < 300 else 60 if seconds < 7200 else 600
    return spoken(math.ceil(seconds / step) * step)
