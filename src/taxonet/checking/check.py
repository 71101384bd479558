"""`check`: every picture is opened once, and what is wrong with the set comes back as a report."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from taxonet.checking.duplicates import Member, duplicate_issues, equal_groups, rank
from taxonet.checking.exclusion import write_exclusions
from taxonet.checking.issues import GRAVITY, KINDS, Issue, name_of, root_of
from taxonet.checking.judge import BLANK_SPREAD, Typical, class_issues, judge
from taxonet.checking.labels import LabelCheck, check_labels
from taxonet.checking.looks import Look, Unreadable, look
from taxonet.checking.near import near_groups
from taxonet.checking.same_pixels import equal_pixels
from taxonet.console import Listener, Silent, Terminal
from taxonet.data import DataSet, Finding, Sample, read_ahead, read_data
from taxonet.errors import ImageError, UsageError
from taxonet.images.source import identify

DEFAULT_MODEL = "efficientnet_lite0"
LARGEST_SEED = 2**32 - 1  # of what divides the folds


@dataclass(frozen=True)
class CheckReport:
    """What a check found: `issues` in the order of `KINDS`, and what it looked at."""

    data: Path
    n: int
    classes: Mapping[str, int]
    splits: Mapping[str, int]
    issues: tuple[Issue, ...]
    labels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind that was found."""
        counts = Counter(issue.kind for issue in self.issues)
        return {kind: counts[kind] for kind in KINDS if counts[kind]}

    def failed(self, strict: bool = False) -> bool:
        """Whether there is an error or a warning, or with `strict` also a note."""
        worst = GRAVITY["note" if strict else "warning"]
        return any(GRAVITY[issue.severity] <= worst for issue in self.issues)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: n, classes, splits, findings, counts, labels."""
        return {
            "data": str(self.data),
            "n": self.n,
            "classes": dict(self.classes),
            "splits": dict(self.splits),
            "findings": [issue.as_dict() for issue in self.issues],
            "counts": self.counts,
            "labels": dict(self.labels),
        }

    def write_exclusions(self, path: str | os.PathLike[str]) -> int:
        """Write the list that `train --exclude` takes; returns how many pictures it leaves out as it stands."""
        return write_exclusions(path, self.issues)

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write a page with thumbnails that needs nothing else."""
        from taxonet.checking.page import write_page

        write_page(path, self)


def check(
    data: str | os.PathLike[str],
    *,
    labels: bool = True,
    model: str = DEFAULT_MODEL,
    seed: int = 0,
    progress: bool = False,
) -> CheckReport:
    """Look for what is wrong with a data set; nothing is moved, changed or deleted.

    Args:
        data: a folder of class folders, with or without train/, val/ and test/ above them, or a CSV/Parquet table.
        labels: also look for wrong labels, which takes most of the time.
        model: the pretrained network, or bundle, whose features judge the labels. A bundle that was trained on these
            labels has learned their errors, too, and doubts few of them.
        seed: of the folds in which labels are judged.
        progress: tell a person on stderr what happens.

    Raises:
        DataError: there is no data.
        UsageError, BundleError: `model` is not there or cannot be read, or `seed` is out of range.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"seed is {seed}, it must be from 0 to {LARGEST_SEED:,}")
    listener: Listener = Terminal() if progress else Silent()
    found = read_data(data)
    work = _Check(found, listener)
    work.open_all()
    work.duplicates()
    work.issues += class_issues(found.splits)
    facts = work.labels(model, seed) if labels else {"checked": False, "why_not": "left out on demand"}
    order = {kind: place for place, kind in enumerate(KINDS)}
    return CheckReport(
        data=Path(data),
        n=len(found.samples),
        classes=dict(sorted(Counter(sample.label for sample in found.samples).items())),
        splits={name: len(samples) for name, samples in found.splits.items()},
        issues=tuple(sorted(work.issues, key=lambda issue: order[issue.kind])),  # stable: the order within a kind stays
        labels=facts,
    )


class _Check:
    """One call of `check`: the samples, what was seen of each, and the findings so far."""

    def __init__(self, found: DataSet, listener: Listener) -> None:
        self.root = root_of(found.source)
        self.listener = listener
        pairs = [(sample, split) for split, samples in found.splits.items() for sample in samples]
        self.samples: Sequence[Sample] = [sample for sample, _ in pairs]
        self.members = [Member(name_of(s.path, self.root), s.label, split) for s, split in pairs]
        self.issues: list[Issue] = [_not_read(finding, self.root) for finding in found.findings]
        self.looks: list[Look | Unreadable] = []
        self._parents = list(range(len(pairs)))

    def open_all(self) -> None:
        """Look at every picture once; what is told by one picture, or by one against the rest."""
        self.listener.start("opening pictures", len(self.samples))
        for done, seen in enumerate(read_ahead(look, [sample.path for sample in self.samples]), start=1):
            self.looks.append(seen)
            self.listener.advance(done)
        self.listener.finish()
        readable = [seen for seen in self.looks if isinstance(seen, Look)]
        typical = Typical.of(readable) if readable else None
        for sample, member, seen in zip(self.samples, self.members, self.looks, strict=True):
            if isinstance(seen, Unreadable):
                self.issues.append(Issue("broken", member.name, seen.reason, member.label, member.split))
            elif typical:
                self.issues += judge(member.name, sample, member.split, seen, typical)

    def duplicates(self) -> None:
        """Equal files, then equal pixels in other files, then pictures that nearly agree."""
        readable = [i for i, seen in enumerate(self.looks) if isinstance(seen, Look)]
        for group in equal_groups(self._digest(i) for i in range(len(self.looks))):
            self._found(group, "the same file")
        first = self._one_of_each([i for i in readable if not self._blank(i)])
        near = self._near(first)
        paths = [sample.path for sample in self.samples]
        same = equal_pixels([group for group in near if self._same_size(group)], paths, self.listener)
        for group in same:
            self._found(group, "the same pixels in another file")
        kept = set(self._one_of_each(first))
        for group in near:
            rest = [i for i in group if i in kept]
            if len(rest) > 1:
                self._found(rest, "nearly the same picture", near=True)

    def _digest(self, i: int) -> bytes | None:
        """None where there is no photo to be doubled: unreadable or blank, which is a finding of its own."""
        seen = self.looks[i]
        return seen.digest if isinstance(seen, Look) and not self._blank(i) else None

    def _blank(self, i: int) -> bool:
        """Blank pictures are all alike, and that says nothing."""
        seen = self.looks[i]
        return isinstance(seen, Look) and seen.spread < BLANK_SPREAD

    def _same_size(self, group: Sequence[int]) -> bool:
        sizes = Counter((s.width, s.height) for s in (self.looks[i] for i in group) if isinstance(s, Look))
        return max(sizes.values()) > 1

    def _one_of_each(self, positions: Sequence[int]) -> list[int]:
        """One of each family: the one that stays when a duplicate is left out of the split with the higher rank."""
        best: dict[int, int] = {}
        for i in positions:
            family = self._family(i)
            if family not in best or rank(self.members[i].split) < rank(self.members[best[family]].split):
                best[family] = i
        return sorted(best.values())

    def _family(self, i: int) -> int:
        """The number that all copies of one photo share."""
        while self._parents[i] != i:
            self._parents[i] = self._parents[self._parents[i]]
            i = self._parents[i]
        return i

    def _near(self, positions: Sequence[int]) -> list[list[int]]:
        chosen = [seen for seen in (self.looks[i] for i in positions) if isinstance(seen, Look)]
        if len(chosen) < 2:
            return []
        hashes = np.array([seen.hash for seen in chosen], np.uint64)
        small = np.frombuffer(b"".join(seen.small for seen in chosen), np.uint8).reshape(len(chosen), -1)
        return [[positions[k] for k in group] for group in near_groups(hashes, small)]

    def _found(self, group: Sequence[int], how: str, near: bool = False) -> None:
        """Findings of a group whose members, or first members of families, are the same."""
        self.issues += duplicate_issues([self.members[i] for i in group], how, near)
        for i in group[1:]:
            self._parents[self._family(i)] = self._family(group[0])

    def labels(self, model: str, seed: int) -> dict[str, Any]:
        """Labels in doubt; the facts of this part for the report."""
        chosen = [i for i, seen in enumerate(self.looks) if isinstance(seen, Look) and not self._blank(i)]
        names = sorted({self.samples[i].label for i in chosen})
        index = {name: k for k, name in enumerate(names)}
        numbers = np.array([index[self.samples[i].label] for i in chosen], np.intp)
        paths = [self.samples[i].path for i in chosen]
        families = np.array([self._family(i) for i in chosen], np.intp)
        result = check_labels(paths, numbers, families, model, seed, self.listener)
        if not isinstance(result, LabelCheck):
            self.listener.say(f"wrong labels: not judged, {result}")
            return {"checked": False, "why_not": result}
        for doubt in result.doubts:
            member, answer = self.members[chosen[doubt.position]], names[doubt.answer]
            reason = f"it looks like '{answer}' ({doubt.probability:.2f}), its class gets {doubt.own:.2f}"
            self.issues.append(Issue("label", member.name, reason, member.label, member.split, answer=answer))
        return {"checked": True, "model": str(model), "judged": result.judged, "agreement": result.agreement}


def _not_read(finding: Finding, root: Path) -> Issue:
    """What the reader of DATA left aside; a picture under another extension is told from what is none."""
    path = Path(finding.path)
    reason = finding.reason
    try:
        with path.open("rb") as file:
            reason += f"; its content is {identify(file.read(512))}"
    except (OSError, ValueError, ImageError):
        pass
    return Issue("not_read", name_of(path, root) if path.is_absolute() or path.exists() else finding.path, reason)
