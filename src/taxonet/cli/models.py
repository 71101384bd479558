"""`taxonet models`."""

from taxonet.cli.output import parse_count, print_json, print_table
from taxonet.figures import short_count


def models(
    pattern: str = "*",
    *,
    family: str | None = None,
    max_params: str | None = None,
    max_macs: str | None = None,
    json: bool = False,
) -> int:
    """List the networks with their cost.

    Parameters
    ----------
    pattern
        Only names that match, such as "densenet*".
    family
        Only networks of this family.
    max_params
        Only networks of at most so many parameters: 5000000 or 5M.
    max_macs
        Only networks of at most so many multiply-adds for one image: 300M or 1.5G.
    json
        One JSON document on stdout.
    """
    from taxonet.information import models as find_models

    found = find_models(
        pattern,
        family=family,
        max_params=parse_count(max_params, "--max-params"),
        max_macs=parse_count(max_macs, "--max-macs"),
    )
    if json:
        print_json([model.as_dict() for model in found])
        return 0
    header = ("name", "family", "parameters", "multiply-adds", "pixels", "classes", "pretrained")
    rows = [
        (
            m.name,
            m.family,
            f"{m.params:,}",
            short_count(m.macs),
            str(m.input_size),
            str(m.num_classes),
            "yes" if m.pretrained else "",
        )
        for m in found
    ]
    print_table(header, rows, right=frozenset({2, 3, 4, 5}))
    return 0
