"""The notation of image pipelines, `step | step(1, x=(0.2, 1.0)) | …`: read without `eval`, printed back the same.

A value is a number, a bare word or a tuple of values. A step is a frozen dataclass: its fields are the arguments,
positional in order, or by name where the field is keyword-only.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import ClassVar, NoReturn, TypeVar

from taxonet.errors import UsageError, nearest

Value = int | float | str | tuple["Value", ...]

MAX_LENGTH = 2000  # characters; a bundle is written by a stranger
MAX_STEPS = 16
MAX_DEPTH = 3

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<word>[A-Za-z_]\w*)|(?P<sign>[|(),=]))",
    re.ASCII,
)


@dataclass(frozen=True)
class Step:
    """Base of all steps; a subclass sets `name`, declares its arguments as fields and checks them when made."""

    name: ClassVar[str]

    def __str__(self) -> str:
        parts = [
            f"{field.name}={show(getattr(self, field.name))}" if field.kw_only else show(getattr(self, field.name))
            for field in fields(self)
        ]
        return f"{self.name}({', '.join(parts)})" if parts else self.name

    def wrong(self, field: str, rule: str, tail: str = "") -> NoReturn:
        """Raise the UsageError for an argument that breaks its rule."""
        what = field.replace("_", " ")
        raise UsageError(f"{self.name}: the {what} must be {rule}, not {show(getattr(self, field))}{tail}")

    def check_whole(self, field: str, low: int, high: int) -> None:
        """Check that a field is a whole number from `low` to `high`."""
        value = getattr(self, field)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.wrong(field, f"a whole number from {low} to {high}")

    def check_number(self, field: str, low: float, high: float) -> None:
        """Check that a field is a number from `low` to `high` and store it as a float."""
        value = getattr(self, field)
        if not _is_number(value) or not low <= value <= high:
            self.wrong(field, f"a number from {show(low)} to {show(high)}")
        object.__setattr__(self, field, float(value))

    def check_interval(self, field: str, low: float, high: float) -> None:
        """Check that a field is a pair of ascending numbers from `low` to `high`, both above 0; store floats."""
        value = getattr(self, field)
        pair = isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_number, value))
        if not pair or not (low <= value[0] <= value[1] <= high and value[0] > 0):
            self.wrong(field, f"two ascending numbers above 0, from {show(low)} to {show(high)}")
        object.__setattr__(self, field, (float(value[0]), float(value[1])))

    def check_word(self, field: str, words: Iterable[str]) -> None:
        """Check that a field is one of `words`."""
        value, known = getattr(self, field), list(words)
        if value not in known:
            self.wrong(field, f"one of {', '.join(known)}", nearest(str(value), known))


AnyStep = TypeVar("AnyStep", bound=Step)


@dataclass(frozen=True)
class Call:
    """One step as written: its name, positional arguments and named arguments."""

    name: str
    positional: tuple[Value, ...]
    named: tuple[tuple[str, Value], ...]


def show(value: object) -> str:
    """Print a value in the notation."""
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(show, value))}{',' if len(value) == 1 else ''})"
    return value if isinstance(value, str) else repr(value)


def show_steps(steps: Iterable[Step]) -> str:
    """Print a pipeline in its canonical form, which names every value, so that a changed default changes nothing."""
    return " | ".join(map(str, steps))


def parse_steps(text: str, kinds: Mapping[str, type[AnyStep]], what: str) -> tuple[AnyStep, ...]:
    """Read a pipeline of the step classes `kinds`; `what` names it in the UsageError of a wrong one."""
    return tuple(_build(call, kinds, what) for call in parse_calls(text, what))


def parse_calls(text: str, what: str = "pipeline") -> tuple[Call, ...]:
    """Split `text` into its steps; raise UsageError where it is not in the notation."""
    if not isinstance(text, str):
        raise UsageError(f"the {what} must be text, not an object of type {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise UsageError(f"the {what} has {len(text)} characters, the limit is {MAX_LENGTH}")
    return _Reader(text, what).pipeline()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _build(call: Call, kinds: Mapping[str, type[AnyStep]], what: str) -> AnyStep:
    if call.name not in kinds:
        tail = nearest(call.name, kinds) or f"; the steps are {', '.join(kinds)}"
        raise UsageError(f"unknown {what} step '{call.name}'{tail}")
    kind = kinds[call.name]
    known = fields(kind)
    places = [field.name for field in known if not field.kw_only]
    if len(call.positional) > len(places):
        takes = f"takes only ({', '.join(places)})" if places else "takes none"
        raise UsageError(f"{call.name} {takes} by position, got {len(call.positional)} values")
    values = dict(zip(places, call.positional, strict=False))
    for name, value in call.named:
        _add_named(values, name, value, call.name, known)
    for field in known:
        if field.name not in values and field.default is MISSING:
            raise UsageError(f"{call.name} needs its {field.name.replace('_', ' ')}, as in {call.name}(…)")
    return kind(**values)


def _add_named(
    values: dict[str, Value], name: str, value: Value, step: str, known: tuple["Field[object]", ...]
) -> None:
    names = [field.name for field in known]
    if name not in names:
        raise UsageError(f"{step} has no option '{name}'{nearest(name, names)}")
    if name in values:
        raise UsageError(f"{step} got its {name.replace('_', ' ')} twice")
    values[name] = value


class _Reader:
    """Recursive descent: pipeline = step {'|' step}; step = word ['(' [argument {',' argument}] ')']."""

    def __init__(self, text: str, what: str) -> None:
        self.text, self.what, self.at = text, what, 0

    def pipeline(self) -> tuple[Call, ...]:
        calls = [self.step()]
        while self.accept("|"):
            calls.append(self.step())
        if self.text[self.at :].strip():
            self.fail("'|' or the end")
        if len(calls) > MAX_STEPS:
            raise UsageError(f"the {self.what} has {len(calls)} steps, the limit is {MAX_STEPS}")
        return tuple(calls)

    def step(self) -> Call:
        name = self.take("word")
        if name is None:
            self.fail("the name of a step")
        positional: list[Value] = []
        named: list[tuple[str, Value]] = []
        if self.accept("("):
            while not self.accept(")"):
                self.argument(positional, named)
                if not self.accept(",") and not self.sees(")"):
                    self.fail("',' or ')'")
        return Call(name, tuple(positional), tuple(named))

    def argument(self, positional: list[Value], named: list[tuple[str, Value]]) -> None:
        value = self.value(0)
        if isinstance(value, str) and self.accept("="):
            named.append((value, self.value(0)))
        elif named:
            self.fail("a named value, as those before it")
        else:
            positional.append(value)

    def value(self, depth: int) -> Value:
        if (number := self.take("number")) is not None:
            return int(number) if number.lstrip("+-").isdigit() else float(number)
        if (word := self.take("word")) is not None:
            return word
        if depth >= MAX_DEPTH or not self.accept("("):
            self.fail("a number, a word or a tuple")
        items: list[Value] = []
        while not self.accept(")"):
            items.append(self.value(depth + 1))
            if not self.accept(",") and not self.sees(")"):
                self.fail("',' or ')'")
        return tuple(items)

    def take(self, kind: str) -> str | None:
        match = _TOKEN.match(self.text, self.at)
        if match is None or match.lastgroup != kind:
            return None
        self.at = match.end()
        return match.group(kind)

    def sees(self, sign: str) -> bool:
        match = _TOKEN.match(self.text, self.at)
        return match is not None and match.group("sign") == sign

    def accept(self, sign: str) -> bool:
        return self.sees(sign) and self.take("sign") == sign

    def fail(self, expected: str) -> NoReturn:
        rest = self.text[self.at :].strip()
        where = f"at '{rest[:20]}'" if rest else "at its end"
        raise UsageError(f"cannot read the {self.what} '{self.text[:200]}' {where}: expected {expected}")
