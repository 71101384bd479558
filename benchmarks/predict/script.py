"""What the scripts of this folder share: their arguments, and the loop that shows and writes row after row."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from peers import missing_packages
from race import machine

from networks import TIMM


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that every script has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--networks", nargs="+", default=list(TIMM), choices=list(TIMM))
    made.add_argument("--data", type=Path, help="a folder of class folders to make the photos from")
    made.add_argument("--work", type=Path, help="where photos and model files are kept for the next time")
    made.add_argument("--under", metavar="COMMAND", help="what runs a command when the machine is free")
    made.add_argument("--json", type=Path)
    return made


def parsed(made: argparse.ArgumentParser, contenders: list[str] | None = None) -> argparse.Namespace:
    """The arguments; one sentence where the packages of `contenders`, else of those asked for, are missing."""
    options = made.parse_args()
    if sentence := missing_packages(contenders or options.only):
        made.error(sentence)
    return options


def run(
    options: argparse.Namespace,
    cells: Iterable[tuple[Any, ...]],
    measure: Callable[..., dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
) -> None:
    """Measure each cell of the table, `measure(options, *cell, folder)`; what is done is shown and written at once."""
    document: dict[str, Any] = {"command": " ".join(sys.argv), "machine": machine(), "results": []}
    with tempfile.TemporaryDirectory() as temporary:
        for cell in cells:
            row = measure(options, *cell, options.work or Path(temporary))
            show(row)
            document["results"].append(row)
            if options.json:
                options.json.write_text(json.dumps(document, indent=2))
