"""What the scripts of this folder share: their arguments, and the loop that shows and writes row after row."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from peers import PEERS, missing_packages
from race import Alone, machine

from networks import TIMM, Files, prepare


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that every script has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--networks", nargs="+", default=list(TIMM), choices=list(TIMM))
    made.add_argument("--data", type=Path, help="a folder of class folders to make the photos from")
    made.add_argument("--work", type=Path, help="where photos and model files are kept for the next time")
    made.add_argument("--under", metavar="COMMAND", help="what runs a command when the machine is free")
    made.add_argument("--json", type=Path)
    return made


def add_forms(made: argparse.ArgumentParser) -> None:
    """The arguments that `prepared` needs."""
    made.add_argument("--weights", nargs="*", default=[], metavar="NETWORK=FILE", help="real weights of a network")
    made.add_argument("--int8", action="store_true", help="quantise the networks on the photos, for `taxonet int8`")


def prepared(options: argparse.Namespace, network: str, folder: Path, photos: list[Path]) -> Files:
    """The network's files below `folder`, made in a process of its own, so that none of it stays in memory."""
    given = dict(pair.split("=", 1) for pair in options.weights).get(network)
    home = folder / (f"{network}-{Path(given).stem}" if given else network)
    peers = any(name in options.only for name in ("openvino latency", *(peer.NAME for peer in PEERS)))
    with Alone(options.under), ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(prepare, network, home, photos, given, peers, options.int8).result()


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
