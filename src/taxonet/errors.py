"""The errors of Taxonet: each is one sentence that names the thing, the rule and the nearest right spelling."""

import difflib
import os
from collections.abc import Iterable
from itertools import islice
from numbers import Integral, Real
from pathlib import Path

LOOKED_AT = 300  # names of a folder; more take longer than the hint is worth


class TaxonetError(Exception):
    """Base of every error that Taxonet raises on purpose; `exit_status` is what the command returns for it."""

    exit_status = 3


class UsageError(TaxonetError, ValueError):
    """A wrong name, option or value (exit status 2)."""

    exit_status = 2


class DataError(TaxonetError):
    """A data set, folder or list that cannot be used at all (exit status 3)."""


class ImageError(TaxonetError):
    """One image that cannot be read; the text is the reason, without the path."""


class BundleError(TaxonetError):
    """A model file that is not a valid bundle, or weights that do not fit their network."""


class DownloadError(TaxonetError):
    """A file that cannot be brought over the network, or that is not the one it should be."""


class NoMemoryError(TaxonetError):
    """Memory that does not hold even one picture's pass through a network."""


class TrainingError(TaxonetError):
    """A training run that cannot go on."""


def is_number(value: object) -> bool:
    """Whether a value is a number that counts, numpy's included, and not a truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse a value that is no whole number of at least so much."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}, it must be a whole number")
    if value < least:
        raise UsageError(f"{name} is {value}, it must be at least {least}")


def check_model(model: object) -> None:
    """Refuse what cannot name a model."""
    if not isinstance(model, str | os.PathLike):
        raise UsageError(f"the model is {model!r}, it must be a path or a name")


def nearest(word: str, choices: Iterable[str]) -> str:
    """The tail of an error sentence: `; did you mean 'x'?`, or nothing when no choice comes close."""
    known = list(choices)
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not match:  # case and separators are the usual slips
        folded = {_fold(c): c for c in known}
        match = [folded[m] for m in difflib.get_close_matches(_fold(word), folded, n=1, cutoff=0.75)]
    return f"; did you mean '{match[0]}'?" if match else ""


def nearest_file(path: str | os.PathLike[str]) -> str:
    """The same for a path that leads nowhere: the nearest name in its folder; nothing where it is there after all."""
    wanted = Path(path)
    while not wanted.parent.exists() and wanted.parent != wanted:
        wanted = wanted.parent  # a folder above is misspelt
    try:
        names = [entry.name for entry in islice(wanted.parent.iterdir(), LOOKED_AT + 1)]
    except (OSError, ValueError):
        return ""
    if wanted.name in names or len(names) > LOOKED_AT:
        return ""
    stems = {Path(name).stem: name for name in sorted(names)}  # an ending that is shared is no likeness
    hint = nearest(wanted.stem, stems)
    found = next((name for stem, name in stems.items() if hint == f"; did you mean '{stem}'?"), None)
    return "" if found is None else f"; did you mean '{found if wanted == Path(path) else wanted.with_name(found)}'?"


def _fold(word: str) -> str:
    return "".join(ch for ch in word.lower() if ch.isalnum())
