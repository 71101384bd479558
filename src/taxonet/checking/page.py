"""The page of a check: the findings with thumbnails, in one HTML file that needs nothing else."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from taxonet._version import __version__
from taxonet.checking.issues import KINDS, OF_CLASSES, Issue, Kind, root_of
from taxonet.data import read_ahead
from taxonet.evaluation.report import thumbnail
from taxonet.files import write_atomically

if TYPE_CHECKING:
    from taxonet.checking.check import CheckReport

SHOWN = 24  # findings of a kind that the page shows
OTHERS = 2  # further pictures of one finding


@dataclass(frozen=True)
class Section:
    """One kind of finding on the page: the first of its findings, each with its thumbnails."""

    name: str
    kind: Kind
    count: int
    shown: Sequence[Issue]
    pictures: Sequence[Sequence[tuple[str, str]]]  # of each finding: path and data URI, which may be empty


def write_page(path: str | os.PathLike[str], report: "CheckReport") -> None:
    """Write the page; thumbnails of files that cannot be read are left away."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("taxonet.checking", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("page.html.j2").render(
        report=report,
        sections=[_section(name, count, report) for name, count in report.counts.items()],
        by_severity={
            severity: sum(issue.severity == severity for issue in report.issues)
            for severity in ("error", "warning", "note")
        },
        version=__version__,
    )
    write_atomically(path, page.encode(errors="backslashreplace"))  # a file name may be no text


def _section(name: str, count: int, report: "CheckReport") -> Section:
    shown = [issue for issue in report.issues if issue.kind == name][:SHOWN]
    has_pictures = name not in ("broken", "not_read", *OF_CLASSES)
    root = root_of(report.data)
    wanted = [(issue.path, *issue.also[:OTHERS]) if has_pictures else () for issue in shown]
    drawn = read_ahead(lambda paths: [(path, thumbnail(Path(root, path))) for path in paths], wanted)
    return Section(name, KINDS[name], count, shown, list(drawn))
