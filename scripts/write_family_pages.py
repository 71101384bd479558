"""Write docs/families: one page a family, from its sheet and its networks, and an index.

    python -m scripts.write_family_pages

`tests/docs/test_family_pages.py` fails while a page is not what this script would write.
"""

import sys
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from taxonet.information import draw
from taxonet.sheets import Figure, Sheet, VariantFacts, families, load_sheet

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "families"
# What is drawn of a family: a variant, and the block that shows the idea (None: the stages of the variant).
DIAGRAMS: dict[str, list[tuple[str, str | None]]] = {
    "alexnet": [("alexnet_two_group", None)],
    "bn_inception": [("se_bn_inception", "inception4a"), ("bn_inception", "inception3c")],
    "densenet": [("densenet_bc_22_12", "block1"), ("densenet121", None)],
    "dpn": [("dpn92", "stage2.1"), ("dpn92", None)],
    "efficientnet": [("efficientnet_b0", "stage2.1"), ("efficientnet_b0", None)],
    "efficientnet_lite": [("efficientnet_lite0", "stage2.1"), ("efficientnet_lite0", None)],
    "googlenet": [("googlenet", "inception4a"), ("googlenet", None)],
    "igc": [("igc_l24m2_20_ident", "stage1.0"), ("igc_l100m2_imagenet", None)],
    "igcv3": [("igcv3_d", "stage2.1"), ("igcv3_d", None)],
    "mnasnet": [("mnasnet_a1", "stage3.1"), ("mnasnet_a1", None)],
    "mobilenet_v1": [("mobilenet_v1", "stage1.0"), ("mobilenet_v1", None)],
    "mobilenet_v2": [("mobilenet_v2", "stage2.1"), ("mobilenet_v2", None)],
    "mobilenet_v3": [("mobilenet_v3_large", "stage3.1"), ("mobilenet_v3_large", None)],
    "nfnet": [("nfnet_f0", "stage2.1"), ("nfnet_f0", None)],
    "residual_attention": [("attention56", "stage2.attention1"), ("attention56", None)],
    "resnet": [("resnet50", "stage2.0"), ("preresnet50", "stage2.0"), ("resnet50", None)],
    "resnext": [("resnext50_32x4d", "stage2.1"), ("resnext50_32x4d", None)],
    "senet": [("seresnet50", "stage1.1"), ("seresnet50", None)],
    "shufflenet_v1": [("shufflenet_v1_g3_x1_0", "stage2.1"), ("shufflenet_v1_g3_x1_0", "stage2.0")],
    "shufflenet_v2": [("shufflenet_v2_x1_0", "stage2.1"), ("shufflenet_v2_x1_0", "stage2.0")],
    "vgg": [("vgg16", None)],
}
SIZES = ("parameters", "multiply-adds")


def pages() -> dict[str, str]:
    """Every file of docs/families by its name."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    template = environment.get_template("family_page.md.j2")
    files = {"README.md": _index()}
    for family in families():
        sheet = load_sheet(family)
        diagrams = [_diagram(variant, block) for variant, block in DIAGRAMS[family]]
        files |= {diagram["file"]: diagram["svg"] for diagram in diagrams}
        files[f"{family}.md"] = template.render(
            sheet=sheet,
            venue=_venue(sheet),
            diagrams=diagrams,
            rows=[_row(facts) for facts in sheet.variants.values()],
            notes=[(facts.name, facts.note) for facts in sheet.variants.values() if facts.note],
            cell=_cell,
        )
    return files


def _diagram(variant: str, block: str | None) -> dict[str, Any]:
    file = f"{variant}-{block.replace('.', '-') if block else 'stages'}.svg"
    caption = f"`{block}` of `{variant}`" if block else f"The stages of `{variant}`"
    return {"variant": variant, "block": block, "file": file, "caption": caption, "svg": draw(variant, block)}


def _venue(sheet: Sheet) -> str:
    paper = sheet.paper
    year = "" if str(paper.year) in paper.venue else f" {paper.year}"
    link = f", [arXiv {paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else ""
    return f"{paper.venue}{year}{link}"


def _row(facts: VariantFacts) -> dict[str, str]:
    published = {metric: [f for f in facts.published if f.metric == metric] for metric in SIZES}
    results = [f for f in facts.published if f.unit == "%"]
    return {
        "name": facts.name,
        "pixels": str(facts.input_size),
        "params": f"{facts.params:,}",
        "published_params": "; ".join(map(_figure, published["parameters"])) or "–",
        "macs": f"{facts.macs_m:,.2f} M" if facts.macs_m is not None else "–",
        "published_macs": "; ".join(map(_figure, published["multiply-adds"])) or "–",
        "result": f"{results[0].data}: {_cell(results[0].metric)} {_figure(results[0])}" if results else "–",
        "ports": ", ".join(_port(port.library, port.name, port.options) for port in facts.ports) or "–",
    }


def _figure(figure: Figure) -> str:
    return f"{figure.value:g} {figure.unit}".strip() + f" ({figure.source[0]})"


def _port(library: str, name: str, options: dict[str, Any]) -> str:
    with_options = ", ".join(f"{key}={value}" for key, value in options.items())
    return f"{library} `{name}`" + (f" ({with_options})" if options else "")


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


def _index() -> str:
    sheets = [load_sheet(family) for family in families()]
    variants = [facts for sheet in sheets for facts in sheet.variants.values()]
    ports = [port for facts in variants for port in facts.ports]
    lines = [
        "# The families",
        "",
        "<!-- Written by `python -m scripts.write_family_pages`; edit the sheets. -->",
        "",
        f"{len(variants)} networks in {len(sheets)} families. On every test run each must cost what its sheet says,",
        f"and in {len(ports)} comparisons the logits must equal those of torchvision's or timm's network.",
        "",
        "| family | variants | parameters | compared with ports | paper |",
        "|---|--:|---|--:|---|",
    ]
    for sheet in sheets:
        sizes = [facts.params for facts in sheet.variants.values()]
        compared = sum(len(facts.ports) for facts in sheet.variants.values())
        lines.append(
            f"| [{sheet.title}]({sheet.family}.md) | {len(sizes)} | {_short(min(sizes))} to {_short(max(sizes))} | "
            f"{compared} | {_venue(sheet)} |"
        )
    lines += [
        "",
        "## Published, and not reproduced",
        "",
        "Rows of papers, READMEs and ports that the networks as described do not give, or that were left out.",
        "",
        "| family | row | published | reason |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {sheet.title} | {_cell(row.row)} | {_cell(row.published)} | {_cell(row.reason)} |"
        for sheet in sheets
        for row in sheet.not_reproduced
    ]
    return "\n".join(lines) + "\n"


def _short(count: int) -> str:
    return f"{count / 1e6:.3g} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def main() -> None:
    """Write the pages, and remove what no page uses any more."""
    PAGES.mkdir(parents=True, exist_ok=True)
    files = pages()
    for old in PAGES.iterdir():
        if old.name not in files:
            old.unlink()
    for name, text in files.items():
        (PAGES / name).write_text(text, "utf-8")
    print(f"{len(files)} files in {PAGES.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
