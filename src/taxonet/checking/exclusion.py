"""The list of pictures to leave out: one path a line, counted from DATA, to read and change by hand.

A line that starts with # is a remark. A path with a line break or a leading # or quote is written as a JSON string.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from taxonet.checking.issues import KINDS, OF_CLASSES, Issue, name_of
from taxonet.data import Sample
from taxonet.errors import UsageError, nearest
from taxonet.files import write_atomically

HEADER = """\
# Pictures to leave out: taxonet train DATA --exclude THIS_FILE
# Paths count from DATA; a line that starts with # is not used, take the # away to leave that picture out too.
"""
HINTS = 20  # unknown entries that get the nearest name: looking for it takes time


def write_exclusions(path: str | os.PathLike[str], issues: Sequence[Issue]) -> int:
    """Write the list, grouped by kind; kinds that a person has to look at are written as remarks. How many are used."""
    lines, written = [HEADER], set()
    for kind, fact in KINDS.items():
        found = [issue for issue in issues if issue.kind == kind]
        names = [name for issue in found for name in _names(issue)]
        if not names or kind in ("not_read", *OF_CLASSES) or fact.severity == "note":
            continue
        hint = fact.suggestion if fact.exclude else f"to look at: {fact.suggestion}"
        new = [name for name in dict.fromkeys(names) if name not in written]
        above = f"; {len(names) - len(new):,} of them stand above" if len(new) < len(names) else ""
        lines.append(f"\n# {fact.title}: {len(names):,} ({hint}{above})\n")
        lines += [("" if fact.exclude else "#") + _quoted(name) + "\n" for name in new]
        written |= set(new) if fact.exclude else set()
    write_atomically(path, "".join(lines).encode(errors="surrogateescape"))
    return len(written)


def write_exclusion_list(path: str | os.PathLike[str], names: Iterable[str]) -> None:
    """Write a list that `read_exclusions` reads back equal."""
    write_atomically(path, "".join(f"{_quoted(name)}\n" for name in names).encode(errors="surrogateescape"))


def _names(issue: Issue) -> tuple[str, ...]:
    """One photo in two classes: nobody knows which label is right, so all its copies are named."""
    return (issue.path, *issue.also) if issue.kind == "two_classes" else (issue.path,)


def _quoted(name: str) -> str:
    plain = name.splitlines() == [name] and name.strip() == name and not name.startswith(("#", '"'))
    return name if plain else json.dumps(name)


def read_exclusions(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The paths of a list, each once, in its order.

    Raises:
        UsageError: the list cannot be read.
    """
    try:
        text = Path(path).read_bytes().decode(errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"the list {path} cannot be read: {error.strerror}") from error
    names = (_unquoted(line.strip(), path) for line in text.removeprefix("\ufeff").split("\n"))
    return tuple(dict.fromkeys(name for name in names if name))


def _unquoted(line: str, path: str | os.PathLike[str]) -> str:
    if line.startswith("#"):
        return ""
    if line.startswith('"'):
        try:
            line = str(json.loads(line))
        except json.JSONDecodeError as error:
            raise UsageError(f"the list {path} has the line {line}, which is no JSON string: {error}") from error
    return PurePosixPath(line).as_posix() if line else ""


@dataclass(frozen=True)
class Exclusions:
    """What a list names: pictures of DATA, and entries that DATA does not have, with the nearest name."""

    source: str
    names: tuple[str, ...]

    def split(self, samples: Iterable[Sample], root: Path) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
        """The samples that stay, and those that the list names."""
        wanted = set(self.names)
        stay: list[Sample] = []
        leave: list[Sample] = []
        for sample in samples:
            named = name_of(sample.path, root) in wanted or sample.path.as_posix() in wanted
            (leave if named else stay).append(sample)
        return tuple(stay), tuple(leave)

    def unknown(self, samples: Sequence[Sample], root: Path) -> list[tuple[str, str]]:
        """Entries that DATA does not have, each with a hint.

        Raises:
            UsageError: DATA has not one of them: the list is of other data, or its paths count from elsewhere.
        """
        have = {name_of(sample.path, root) for sample in samples} | {s.path.as_posix() for s in samples}
        missing = [name for name in self.names if name not in have]
        if missing and len(missing) == len(self.names):
            hint = _hint(missing[0], have)
            raise UsageError(
                f"{self.source} names no picture of {root}, its paths must count from there: {missing[0]}{hint}"
            )
        return [(name, _hint(name, have) if place < HINTS else "") for place, name in enumerate(missing)]


def _hint(name: str, have: Iterable[str]) -> str:
    """The nearest name among those of the same folder or the same file name: all would take long."""
    pure = PurePosixPath(name)
    near = [other for other in have if other.endswith("/" + pure.name) or PurePosixPath(other).parent == pure.parent]
    return nearest(name, near[:2000])
