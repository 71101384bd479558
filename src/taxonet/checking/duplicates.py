"""Duplicates as findings: within a split, across splits, in two classes; exact or near.

Only files of equal size can be equal, so the quick form, which training runs by itself, reads few of them.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from taxonet.checking.issues import Issue
from taxonet.checking.looks import content_digest
from taxonet.data import read_ahead
from taxonet.errors import ImageError
from taxonet.images import DEFAULT_LIMITS
from taxonet.images.source import read_file

RANK = {"test": 0, "val": 1, "train": 2}  # a duplicate is left out of the split with the higher rank
MOST_NAMED = 5  # others of a group that a finding names


def rank(split: str) -> int:
    """How early a split loses a duplicate; data without splits has one rank."""
    return RANK.get(split, len(RANK))


@dataclass(frozen=True)
class Member:
    """A picture of a group: its position in the data, its name counted from DATA, its class and split."""

    name: str
    label: str
    split: str


def equal_groups(keys: Iterable[Hashable | None]) -> list[list[int]]:
    """Positions with equal keys, two or more a group; None is equal to nothing."""
    found: dict[Hashable, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        if key is not None:
            found[key].append(position)
    return [group for group in found.values() if len(group) > 1]


def equal_files(paths: Sequence[Path]) -> list[list[int]]:
    """Groups of files with the same bytes; only files that share their size with another are read."""
    by_size = equal_groups(_size(path) for path in paths)
    doubtful = [position for group in by_size for position in group]
    digests: list[bytes | None] = [None] * len(paths)
    answers = read_ahead(_digest, [paths[position] for position in doubtful])
    for position, digest in zip(doubtful, answers, strict=True):
        digests[position] = digest
    return sorted(equal_groups(digests))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size or None
    except (OSError, ValueError):
        return None


def _digest(path: Path) -> bytes | None:
    try:
        return content_digest(read_file(path, DEFAULT_LIMITS))
    except ImageError:  # it is reported when it is opened
        return None


def duplicate_issues(members: Sequence[Member], how: str, near: bool = False) -> Iterator[Issue]:
    """The findings of one group of equal (or nearly equal) pictures; `how` says in what they are equal."""
    kept = min(members, key=lambda member: (rank(member.split), member.name))
    for member in members:
        others = [other for other in members if rank(other.split) < rank(member.split)]
        if others:
            kind = "near_duplicate_across_splits" if near else "duplicate_across_splits"
            reason = f"{how} as in {', '.join(sorted({other.split for other in others}))}"
            yield _issue(kind, member, others, reason)
    if len({member.label for member in members}) > 1:
        kind = "near_duplicate_in_two_classes" if near else "two_classes"
        reason = f"{how} in {', '.join(sorted({member.label for member in members}))}"
        yield _issue(kind, kept, [member for member in members if member is not kept], reason)
    for same in equal_groups((member.split, member.label) for member in members):
        first, *copies = sorted((members[i] for i in same), key=lambda member: member.name)
        kind = "near_duplicate" if near else "duplicate"
        for copy in copies:
            yield _issue(kind, copy, [first], how)


def _issue(kind: str, member: Member, others: Sequence[Member], reason: str) -> Issue:
    names = tuple(other.name for other in others)
    if "two_classes" in kind:  # all of them are needed to choose, and to leave all out
        return Issue(kind, member.name, reason, member.label, member.split, names)
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return Issue(kind, member.name, reason + more, member.label, member.split, names[:MOST_NAMED])
