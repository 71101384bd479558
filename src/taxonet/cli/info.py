"""`taxonet info`."""

from textwrap import fill

from taxonet.cli.output import print_json, print_table, short_count


def info(name: str, *, json: bool = False) -> int:
    """Show what is known of a network: paper, published and built figures, and where sources differ.

    Parameters
    ----------
    name
        The network's name, or its torchvision or timm spelling.
    json
        One JSON document on stdout.
    """
    from taxonet.information import info as find_info

    facts = find_info(name)
    if json:
        print_json(facts.as_dict())
        return 0
    paper = facts.paper
    print(f"{facts.name}  ({facts.family})\n")
    print(fill(facts.idea, 100))
    print(f"\npaper          {paper.title}")
    place = paper.venue if str(paper.year) in paper.venue else f"{paper.venue} {paper.year}"
    arxiv = f", arXiv {paper.arxiv}" if paper.arxiv and paper.arxiv not in place else ""
    print(f"               {paper.authors}; {place}{arxiv}")
    print(f"parameters     {facts.params:,}")
    pixels = f"{facts.input_size}×{facts.input_size}"
    print(f"multiply-adds  {short_count(facts.macs)}  (Conv2d and Linear, one image of {pixels})")
    print(f"classes        {facts.num_classes}")
    print(f"preprocessing  {facts.preprocessing}")
    print(f"options        {', '.join(f'{k}={v!r}' for k, v in facts.options.items())}")
    print(f"pretrained     {', '.join(facts.pretrained) or 'none in the catalogue'}")
    if facts.note:
        print("\n" + fill(facts.note, 100))
    if facts.published:
        print("\npublished figures (source: where they were read; unverified: from memory, not re-read)")
        rows = [(f.data or "–", f.metric, f"{f.value:g} {f.unit}".strip(), f.source) for f in facts.published]
        print_table(("data", "metric", "value", "source"), rows, right=frozenset({2}))
    print("\nwhere paper, authors' code and ports differ")
    for divergence in facts.divergences:
        print(f"- {divergence.topic}")
        for who, text in (("paper", divergence.paper), ("others", divergence.others), ("taxonet", divergence.taxonet)):
            print(fill(text, 100, initial_indent=f"    {who + ':':<9}", subsequent_indent=" " * 13))
    return 0
