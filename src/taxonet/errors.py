"""The errors of Taxonet: each is one sentence that names the thing, the rule and the nearest right spelling."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


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
    try:
        names = [entry.name for entry in wanted.parent.iterdir()]
    except (OSError, ValueError):
        return ""
    return "" if wanted.name in names else nearest(wanted.name, names)


def _fold(word: str) -> str:
    return "".join(ch for ch in word.lower() if ch.isalnum())
