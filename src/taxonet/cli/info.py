"""`taxonet info`."""

import sys
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from taxonet.cli.output import print_json, print_table
from taxonet.errors import UsageError
from taxonet.figures import short_count
from taxonet.files import write_atomically

if TYPE_CHECKING:
    from taxonet.information import ModelInfo


def info(name: str, *, draw: Path | None = None, block: str | None = None, json: bool = False) -> int:
    """Show what is known of a network: paper, published and built figures, and where sources differ.

    Parameters
    ----------
    name
        The network's name, or its torchvision or timm spelling.
    draw
        Draw the network's stages into this SVG file: maps, blocks, shares of parameters and multiply-adds.
    block
        With --draw: draw the inside of this block instead, such as "stage2.0".
    json
        One JSON document on stdout.
    """
    from taxonet.information import draw as draw_network
    from taxonet.information import info as find_info

    if block is not None and draw is None:
        raise UsageError("--block says what to draw, so it needs --draw FILE.svg")
    if draw is not None and draw.suffix.lower() != ".svg":
        raise UsageError(f"--draw writes SVG, so {draw} must end in .svg")
    facts = find_info(name)
    if draw is not None:
        write_atomically(draw, draw_network(name, block).encode())
        print(f"drawn: {draw}", file=sys.stderr)
    if json:
        print_json(facts.as_dict())
    elif draw is None:
        _print(facts)
    return 0


def _print(facts: "ModelInfo") -> None:
    paper = facts.paper
    print(f"{facts.name}  ({facts.family})\n")
    print("\n\n".join(fill(paragraph, 100) for paragraph in facts.idea.split("\n\n")))
    print(f"\npaper          {paper.title}")
    place = paper.venue if str(paper.year) in paper.venue else f"{paper.venue} {paper.year}"
    arxiv = f", arXiv {paper.arxiv}" if paper.arxiv and paper.arxiv not in place else ""
    print(f"               {paper.authors}; {place}{arxiv}")
    print(f"parameters     {facts.params:,}")
    pixels = f"{facts.input_size}×{facts.input_size}"
    print(f"multiply-adds  {short_count(facts.macs)}  (Conv2d and Linear, one image of {pixels})")
    print(f"classes        {facts.num_classes}")
    print(f"preprocessing  {facts.preprocessing}")
    for number, (option, value) in enumerate(facts.options.items()):
        others = [choice for choice in facts.choices.get(option, ()) if choice != value]
        rule = f"  (or {', '.join(map(repr, others))})" if others else ""
        print(f"{'options' if number == 0 else '':<15}{option}={value!r}{rule}")
    if facts.aliases:
        print(f"also called    {', '.join(facts.aliases)}")
    print(f"pretrained     {', '.join(facts.pretrained) or 'none in the catalogue'}")
    _print_fidelity(facts)
    if facts.note:
        print("\n" + fill(facts.note, 100))
    compared = {row.what for row in facts.fidelity}
    others = [figure for figure in facts.published if figure.metric not in compared]
    if others:
        print("\npublished figures (source: where they were read; unverified: from memory, not re-read)")
        rows = [(f.data or "–", f.metric, f"{f.value:g} {f.unit}".strip(), f.source) for f in others]
        print_table(("data", "metric", "value", "source"), rows, right=frozenset({2}))
    print("\nwhere paper, authors' code and ports differ")
    for divergence in facts.divergences:
        print(f"- {divergence.topic}")
        for who, text in (("paper", divergence.paper), ("others", divergence.others), ("taxonet", divergence.taxonet)):
            print(fill(text, 100, initial_indent=f"    {who + ':':<9}", subsequent_indent=" " * 13))
    if facts.not_reproduced:
        print("\npublished in the family, and not reproduced")
        for missing in facts.not_reproduced:
            print(fill(f"- {missing.row} ({missing.published}): {missing.reason}", 100, subsequent_indent="  "))


def _print_fidelity(facts: "ModelInfo") -> None:
    """The published sizes beside the built ones, and the networks of others that give the same logits."""
    if facts.fidelity:
        print("\nfidelity: published sizes beside the network as built")
        rows = [
            (row.what, f"{row.published:g} {row.unit}".strip(), f"{row.built:,}", f"{row.difference:+.2%}", row.source)
            for row in facts.fidelity
        ]
        print_table(("size", "published", "built", "difference", "source"), rows, right=frozenset({1, 2, 3}))
    for port in facts.ports:
        options = ", ".join(f"{key}={value!r}" for key, value in port.options.items())
        with_options = f", here with {options}" if options else ""
        print(f"same logits as {port.library}'s {port.name} (compared in the tests){with_options}")
