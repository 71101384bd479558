"""`taxonet check`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from taxonet.cli.numbers import Whole
from taxonet.cli.output import print_json, print_table
from taxonet.figures import counted

if TYPE_CHECKING:
    from taxonet.checking import CheckReport

SHOWN = 3  # paths of a kind in the table


def check(
    data: Path,
    /,
    *,
    labels: bool = True,
    model: str = "efficientnet_lite0",
    seed: Whole = 0,
    strict: bool = False,
    show: Whole = SHOWN,
    json: bool = False,
    html: Path | None = None,
    exclude_out: Path | None = None,
) -> int:
    """Look for what is wrong with a data set before training: broken, doubled, odd and perhaps mislabelled pictures.

    Nothing is moved, changed or deleted. Exit status 1 with errors (broken files, duplicates across splits, one photo
    in two classes, a class without training pictures) or warnings, with --strict also with notes; 0 otherwise.

    Parameters
    ----------
    data
        A folder of class folders, with or without train/, val/ and test/ above them, or a CSV/Parquet table.
    labels
        Look for wrong labels, too; it takes most of the time, and how long is said before it.
    model
        The pretrained network, or a bundle, whose features judge the labels.
    seed
        Of the folds in which labels are judged.
    strict
        Notes count, too: exit status 1 with any of them.
    show
        How many paths of a kind the table names.
    json
        One JSON document on stdout: n, classes, splits, findings, counts, labels.
    html
        Write a page with thumbnails that needs nothing else.
    exclude_out
        Write the list that `taxonet train --exclude` takes, to read and change by hand.
    """
    from taxonet.checking import check as run
    from taxonet.files import check_target

    for file in (html, exclude_out):
        if file is not None:
            check_target(file)
    report = run(data, labels=labels, model=model, seed=seed, progress=True)
    if html is not None:
        report.write_html(html)
        print(f"page: {html}", file=sys.stderr)
    if exclude_out is not None:
        count = report.write_exclusions(exclude_out)
        pictures = "picture" if count == 1 else "pictures"
        print(f"list: {exclude_out}, it leaves out {count:,} {pictures}; read it first", file=sys.stderr)
    if json:
        print_json(report.as_dict())
    else:
        _print(report, max(0, show))
    return 1 if report.failed(strict) else 0


def _print(report: "CheckReport", show: int) -> None:
    from taxonet.checking import KINDS

    splits = ", ".join(f"{name} {count:,}" for name, count in report.splits.items() if name != "all")
    print(
        f"{counted(report.n, 'picture')}, {counted(len(report.classes), 'class', 'classes')}"
        + (f" ({splits})" if splits else "")
    )
    if not report.issues:
        print("nothing was found")
    else:
        rows = [(KINDS[kind].severity, f"{count:,}", KINDS[kind].title) for kind, count in report.counts.items()]
        print_table(("", "found", "what"), rows, right=frozenset({1}))
    for kind, count in report.counts.items() if show else ():
        print(f"\n{KINDS[kind].title} ({KINDS[kind].severity}): {KINDS[kind].suggestion}")
        for issue in [issue for issue in report.issues if issue.kind == kind][:show]:
            others = (
                f" {issue.sign} {', '.join(issue.also[:2])}{' …' if len(issue.also) > 2 else ''}" if issue.also else ""
            )
            print(f"  {issue.path}{others}: {issue.reason}")
        if count > show:
            print(f"  … and {count - show:,} more (--json has all, --html shows them)")
    _print_labels(report)


def _print_labels(report: "CheckReport") -> None:
    facts = report.labels
    if facts.get("checked"):
        line = (
            f"labels: judged by {facts['model']}, which agrees with {facts['agreement']:.0%} of {facts['judged']:,}; "
            "where classes look alike to it, it doubts right labels, too"
        )
        print("\n" + line)
    elif facts.get("why_not"):
        print(f"\nlabels: not judged, {facts['why_not']}")
