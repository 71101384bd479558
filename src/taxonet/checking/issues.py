"""What a check can find: the kinds, how grave each is, and what to do about it."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Kind:
    """A kind of finding. `exclude`: whether the list for `train --exclude` leaves such pictures out by itself."""

    title: str
    severity: Severity
    suggestion: str
    exclude: bool = False


# In the order of the table and the page: first what makes figures false, then what wastes training, then what to know.
KINDS: Mapping[str, Kind] = {
    "broken": Kind("cannot be read", "error", "get the file again or leave it out", exclude=True),
    "duplicate_across_splits": Kind(
        "the same photo in two splits",
        "error",
        "leave it out here: a photo that was trained on flatters the figure of the other split",
        exclude=True,
    ),
    "two_classes": Kind(
        "one photo in two classes",
        "error",
        "keep it in the right class alone; the list leaves every copy out, as nobody knows which label is right",
        exclude=True,
    ),
    "class_not_trained": Kind(
        "a class without training pictures", "error", "add training pictures of this class or take it out of the split"
    ),
    "one_class": Kind(
        "only one class", "error", "add pictures of another class: a classifier tells at least two apart"
    ),
    "duplicate": Kind("exact duplicate", "warning", "leave it out: it counts one photo twice", exclude=True),
    "near_duplicate_across_splits": Kind(
        "nearly the same photo in two splits", "warning", "look at both: copies of one photo flatter the other split"
    ),
    "near_duplicate_in_two_classes": Kind(
        "nearly the same photo in two classes", "warning", "look at both: one of the labels is probably wrong"
    ),
    "label": Kind("label in doubt", "warning", "look at it, then move it to its class or leave it out"),
    "near_duplicate": Kind("near duplicate", "warning", "keep the better one"),
    "extension": Kind("the extension is of another format", "warning", "rename it; it is read by its content anyway"),
    "not_read": Kind("not read", "warning", "move it into a class folder, convert it, or take it away"),
    "blank": Kind("blank or nearly so", "warning", "leave it out: there is nothing to learn from it", exclude=True),
    "dark": Kind("dark", "warning", "brighten it or leave it out"),
    "blurred": Kind("blurred", "warning", "look at it; leave it out unless such pictures are to be classified"),
    "tiny": Kind("much smaller than the others", "warning", "get it in a larger size or leave it out"),
    "aspect": Kind("odd aspect ratio", "warning", "crop it to the object: a centre crop sees a small part of it"),
    "few_pictures": Kind("a class with few pictures", "warning", "collect more pictures of this class"),
    "class_not_measured": Kind(
        "a class that a split does not measure",
        "warning",
        "add pictures of this class to the split: no figure is of it",
    ),
    "huge": Kind("huge", "note", "make it smaller: reading it takes long and training sees no more of it"),
    "grey": Kind("grey among colour", "note", "nothing, if such pictures are to be classified"),
    "rotated": Kind(
        "turned upright by its EXIF tag", "note", "nothing: Taxonet applies the tag; other programs may show it lying"
    ),
}
OF_CLASSES = frozenset({"one_class", "few_pictures", "class_not_trained", "class_not_measured"})  # they name no picture
GRAVITY: Mapping[str, int] = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Issue:
    """One finding: `path` (and `also`, the other pictures of it) count from DATA; a class has no path but its name."""

    kind: str
    path: str
    reason: str
    label: str | None = None
    split: str | None = None
    also: tuple[str, ...] = ()
    answer: str | None = None  # of a label: the class that the picture looks like

    @property
    def severity(self) -> Severity:
        """How grave it is: an error makes figures false, a warning costs accuracy, a note is to know."""
        return KINDS[self.kind].severity

    @property
    def sign(self) -> str:
        """Between the path and the others: equal, or nearly so."""
        return "≈" if self.kind.startswith("near") else "="

    @property
    def suggestion(self) -> str:
        """What to do about it."""
        return KINDS[self.kind].suggestion

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        fields = asdict(self)
        rest = {name: fields[name] for name in ("path", "also", "reason")}
        return {
            "kind": self.kind,
            "severity": self.severity,
            **rest,
            "suggestion": self.suggestion,
            **{name: fields[name] for name in ("label", "split", "answer")},
        }


def root_of(source: Path) -> Path:
    """Where the paths of a DATA argument count from: the folder, or the folder of the table."""
    return source if source.is_dir() else source.parent


def name_of(path: str | os.PathLike[str], root: Path) -> str:
    """A picture's path counted from DATA, with / between folders; whole where it lies elsewhere."""
    pure = PurePath(path)
    if pure.is_relative_to(root):
        return pure.relative_to(root).as_posix()
    inside = os.path.relpath(pure, root)
    return PurePath(pure).as_posix() if inside.startswith("..") else PurePath(inside).as_posix()
