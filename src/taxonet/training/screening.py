"""What training looks for in its data by itself, because it costs seconds: copies across splits, contradictions.

A training picture whose file is also in validation or test is left out of training: the network would know the answer,
and the figure would be flattered. It is left out there and not of the other split, so that figures stay comparable with
those of others on the same split. A photo in two classes is warned about and stays: nobody knows which label is right.
Broken files are found when the pictures are opened; `taxonet check` looks for more.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from taxonet.checking.duplicates import Member, duplicate_issues, equal_files
from taxonet.checking.exclusion import Exclusions, read_exclusions
from taxonet.checking.issues import KINDS, OF_CLASSES, Issue, name_of, root_of
from taxonet.checking.judge import class_issues, unmeasured
from taxonet.data import DataSet, Finding, Sample, read_data
from taxonet.errors import DataError, UsageError
from taxonet.figures import counted
from taxonet.training.pictures import Split, split_data

NAMED = 3  # pictures that a line on the terminal names


@dataclass(frozen=True)
class Screened:
    """What a run trains on, what was left out of it before any picture was opened, and what is worth a warning."""

    split: Split
    left_out: tuple[Issue, ...] = ()  # copies of validation and test pictures
    warnings: tuple[Issue, ...] = ()
    checked: bool = False
    exclude: Exclusions | None = None
    excluded: tuple[Sample, ...] = ()  # pictures of the list

    def with_unmeasured(self, split: Split) -> "Screened":
        """With a warning of each class that has training pictures and none in validation, or in the test."""
        counts = Counter(sample.label for sample in split.train)
        found = unmeasured(counts, {"val": split.val, "test": split.test}, "train")
        return replace(self, warnings=(*self.warnings, *found))

    def record(self) -> dict[str, Any]:
        """What run.json says; with it a resumed run trains on the same pictures."""
        listed = {"list": self.exclude.source, "paths": list(self.exclude.names)} if self.exclude else None
        return {
            "exclude": listed,
            "check": self.checked,
            "copies_left_out": [issue.as_dict() for issue in self.left_out],
            "warnings": [issue.as_dict() for issue in self.warnings],
        }

    def lines(self) -> list[str]:
        """What a person is told."""
        told = []
        if self.exclude:
            told.append(f"left out: {counted(len(self.excluded), 'picture')} that {self.exclude.source} names")
        if self.left_out:
            copies = counted(len({issue.path for issue in self.left_out}), "file")
            told.append(
                f"left out of training: {copies} that validation or test has, too; trained on, they would flatter the "
                "figures (--no-check keeps them)"
            )
        return [*told, *(f"warning: {line}" for line in warning_lines(self.warnings))]


def asked_exclusions(path: str | os.PathLike[str] | None) -> Exclusions | None:
    """The list that was asked for; one without entries is none.

    Raises:
        UsageError: it cannot be read.
    """
    names = read_exclusions(path) if path is not None else ()
    return Exclusions(str(path), names) if names else None


def kept_exclusions(run: Path, before: Mapping[str, Any], asked: Any) -> Exclusions | None:
    """A resumed run leaves out what it left out; another list is refused."""
    stored = before.get("exclude")
    kept = Exclusions(stored["list"], tuple(stored["paths"])) if stored else None
    new = asked_exclusions(asked)
    if asked is not None and (new.names if new else ()) != (kept.names if kept else ()):
        raise UsageError(f"the run in {run} left out other pictures than {asked} names; it keeps its list")
    return kept


def kept_check(run: Path, before: Mapping[str, Any], asked: bool) -> bool:
    """A run that was checked stays so; one from before there was a check was not."""
    kept = bool(before.get("check", False))
    if kept and not asked:
        raise UsageError(f"the run in {run} was checked and left copies out, --no-check cannot change that")
    return kept


def prepare(
    data: str | os.PathLike[str], fraction: float, seed: int, exclude: Exclusions | None, check: bool
) -> Screened:
    """Read DATA, leave out what a list names, divide it, and with `check` screen it.

    Raises:
        DataError: there is no data, no training split, fewer than two classes, or a class with nothing but copies.
        UsageError: the list is of other data.
    """
    found = read_data(data)
    excluded: tuple[Sample, ...] = ()
    if exclude:
        found, excluded = leave_out(found, exclude)
    split = split_data(found, fraction, seed)
    screened = screen(split, Path(data)) if check else Screened(split)
    return replace(screened, checked=check, exclude=exclude, excluded=excluded)


def leave_out(found: DataSet, exclude: Exclusions) -> tuple[DataSet, tuple[Sample, ...]]:
    """The data without the pictures that a list names, and those pictures.

    Entries that the data does not have, and classes of which nothing is left, are findings of the data that comes back.

    Raises:
        UsageError: the data has not one of the list's entries.
        DataError: nothing is left.
    """
    root = root_of(found.source)
    unknown = exclude.unknown(found.samples, root)
    parts = {name: exclude.split(samples, root) for name, samples in found.splits.items()}
    splits = {name: stay for name, (stay, _) in parts.items() if stay}
    if not splits:
        raise DataError(f"{exclude.source} leaves out every picture of {found.source}")
    findings = [
        Finding(name, f"{exclude.source} names it, and the data has no such picture{hint}") for name, hint in unknown
    ]
    rest = {sample.label for samples in splits.values() for sample in samples}
    gone = sorted({sample.label for sample in found.samples} - rest)
    findings += [Finding(name, f"{exclude.source} leaves out every picture of this class") for name in gone]
    left = tuple(sample for _, leave in parts.values() for sample in leave)
    return replace(found, splits=splits, findings=(*found.findings, *findings)), left


def screen(split: Split, data: Path) -> Screened:
    """Leave the copies of validation and test pictures out of training; collect what to warn about.

    Raises:
        DataError: a class has no other training pictures.
    """
    root = root_of(data)
    parts = {"train": split.train, "val": split.val, "test": split.test}
    pairs = [(sample, name) for name, samples in parts.items() for sample in samples]
    members = [Member(name_of(sample.path, root), sample.label, name) for sample, name in pairs]
    issues: list[Issue] = []
    dropped: set[int] = set()
    for group in equal_files([sample.path for sample, _ in pairs]):
        issues += duplicate_issues([members[i] for i in group], "the same file")
        if any(members[i].split != "train" for i in group):
            dropped |= {i for i in group if members[i].split == "train"}
    train = tuple(sample for i, sample in enumerate(split.train) if i not in dropped)
    _check_classes(split, train)
    left_out = tuple(issue for issue in issues if _is_left_out(issue))
    gone = {issue.path for issue in left_out}
    findings = (Finding(str(split.train[i].path), _reason(members[i], left_out)) for i in sorted(dropped))
    rest = [
        issue for issue in issues if not _is_left_out(issue) and not (issue.kind == "duplicate" and issue.path in gone)
    ]
    rest += [issue for issue in class_issues({"train": train}) if issue.kind == "few_pictures"]
    return Screened(replace(split, train=train, findings=(*split.findings, *findings)), left_out, tuple(rest))


def _is_left_out(issue: Issue) -> bool:
    return issue.kind == "duplicate_across_splits" and issue.split == "train"


def _reason(member: Member, left_out: Iterable[Issue]) -> str:
    issue = next(issue for issue in left_out if issue.path == member.name)
    return f"{issue.reason} ({issue.also[0]}); trained on, it would flatter that figure"


def _check_classes(split: Split, train: Sequence[Sample]) -> None:
    missing = sorted(set(split.classes) - {sample.label for sample in train})
    if missing:
        raise DataError(
            f"every training picture of the class '{missing[0]}' is also in validation or test; "
            "--no-check trains on them all the same"
        )


def warning_lines(warnings: Sequence[Issue]) -> list[str]:
    """A line for each kind, with the first pictures of it."""
    lines = []
    for kind, count in Counter(issue.kind for issue in warnings).items():
        found = [issue for issue in warnings if issue.kind == kind]
        if kind in OF_CLASSES:
            lines += [f"{issue.reason}; {issue.suggestion}" for issue in found[:NAMED]]
            more = count - NAMED
        else:
            names = "; ".join(" = ".join((issue.path, *issue.also[:1])) for issue in found[:NAMED])
            lines.append(f"{KINDS[kind].title}: {count:,} ({names}{' …' if count > NAMED else ''})")
            more = 0
        if more > 0:
            lines.append(f"{more:,} more: {KINDS[kind].title}")
    return lines
