"""The little SVG that the drawings need: text, boxes, lines, one look for all."""

from collections.abc import Iterable
from xml.sax.saxutils import escape

FONT = "'DejaVu Sans', Verdana, Geneva, sans-serif"
INK, FAINT, PAPER, RULE = "#1f2933", "#627181", "#ffffff", "#c3ccd5"
FILLS = {  # by what a step does; the stroke is the darker second
    "conv": ("#dbe9f8", "#3b6ea5"),
    "grouped": ("#d5efea", "#2b7f70"),
    "unit": ("#e4ebf7", "#3b5c9a"),
    "plain": ("#eef1f4", "#7b8794"),
    "pool": ("#e3f1da", "#5c8a3a"),
    "attention": ("#fde6cf", "#b8651b"),
    "join": ("#efe3f7", "#7d4aa3"),
}


def text_width(words: str, size: float) -> float:
    """A generous estimate: the reader's font is not known."""
    return 0.62 * size * len(words)


def text(
    x: float, y: float, words: str, size: float = 12, anchor: str = "start", fill: str = INK, bold: bool = False
) -> str:
    """One line of text on the baseline y."""
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" fill="{fill}"{weight}>'
        f"{escape(words)}</text>"
    )


def box(x: float, y: float, width: float, height: float, kind: str, radius: float = 5) -> str:
    """A rectangle in the colours of a kind."""
    fill, stroke = FILLS[kind]
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" fill="{fill}" '
        f'stroke="{stroke}"/>'
    )


def circle(x: float, y: float, radius: float, kind: str) -> str:
    """A circle in the colours of a kind."""
    fill, stroke = FILLS[kind]
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" stroke="{stroke}"/>'


def line(points: Iterable[tuple[float, float]], arrow: bool = True, stroke: str = FAINT) -> str:
    """A line through points, with an arrow's head at its end."""
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    head = ' marker-end="url(#arrow)"' if arrow else ""
    return f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="1.3"{head}/>'


def document(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """A whole SVG file; `title` is what a screen reader says."""
    marker = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0.6 L7.4,4 L0,7.4 z" fill="{FAINT}"/></marker></defs>'
    )
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}" role="img" font-family="{FONT}">',
            f"<title>{escape(title)}</title>",
            marker,
            f'<rect width="{width:g}" height="{height:g}" fill="{PAPER}"/>',
            *parts,
            "</svg>\n",
        )
    )
