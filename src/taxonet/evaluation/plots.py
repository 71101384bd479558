"""The plots of a report, as inline SVG in the colours of the page, light or dark."""

import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.evaluation.reliability import Bin
from taxonet.evaluation.selection import Selected, risk_coverage

# matplotlib writes these colours into the SVG, where the page's variables take their place
COLOURS = {
    "#101112": "var(--ink)",
    "#131415": "var(--quiet)",
    "#161718": "var(--line)",
    "#192021": "var(--first)",
    "#222324": "var(--second)",
    "#252627": "var(--mark)",
}
INK, QUIET, LINE, FIRST, SECOND, MARK = COLOURS
MOST_POINTS = 400  # of a curve in a page


def svg(figure: Any, title: str) -> str:
    """A figure as inline SVG; on its own canvas, so that no global state of matplotlib is touched."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    figure.patch.set_alpha(0)
    figure.set_canvas(FigureCanvasSVG(figure))
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    for colour, variable in COLOURS.items():
        drawing = drawing.replace(colour, variable)
    label = html.escape(title, quote=True)
    return f'<svg role="img" aria-label="{label}" ' + drawing[len("<svg ") :]


def _axes(axes: Any, title: str, across: str, up: str) -> None:
    axes.set_facecolor("none")
    axes.set_title(title, color=INK, fontsize=11)
    axes.set_xlabel(across, color=INK)
    axes.set_ylabel(up, color=INK)
    axes.tick_params(colors=QUIET)
    axes.grid(color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(LINE)


def _legend(axes: Any, **options: Any) -> None:
    axes.legend(frameon=False, labelcolor=INK, fontsize=9, **options)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def curves(log: Sequence[Mapping[str, Any]], key: str, title: str) -> str:
    """A figure of training and validation by epoch."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure(4.6, 3.2)
    axes = figure.subplots()
    _axes(axes, title, "epoch", "")
    epochs = [line["epoch"] for line in log]
    for part, name, colour in (("train", "training", FIRST), ("val", "validation", SECOND)):
        values = [line[f"{part}_{key}"] for line in log]
        axes.plot(epochs, values, color=colour, marker="o", markersize=3, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return svg(figure, f"{title} by epoch")


def reliability(bins: Sequence[Bin], title: str, error: float) -> str:
    """Accuracy against confidence in bins: bars on the diagonal are a network that is as right as it sounds."""
    figure = _figure(4.2, 4.2)
    axes, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    _axes(axes, f"{title}: calibration error {100 * error:.1f} %", "", "right")
    _axes(below, "", "probability of the answer", "answers")
    left, width = [part.low for part in bins], [part.high - part.low for part in bins]
    bars = {"width": width, "align": "edge", "edgecolor": LINE}
    axes.bar(left, [part.accuracy for part in bins], color=FIRST, alpha=0.75, label="share that is right", **bars)
    axes.plot([part.confidence for part in bins], [part.accuracy for part in bins], "o", color=INK, markersize=3)
    axes.plot([0, 1], [0, 1], color=MARK, linestyle="--", linewidth=1, label="as sure as right")
    below.bar(left, [part.n for part in bins], color=QUIET, alpha=0.75, **bars)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=INK, fontsize=9)  # bars fill the axes
    return svg(figure, f"reliability, {title}")


def risk_against_coverage(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], chosen: Selected | None = None
) -> str:
    """The share of wrong answers when only the surest are given."""
    figure = _figure(5.4, 3.6)
    axes = figure.subplots()
    _axes(axes, "", "share of pictures answered (coverage)", "share of answers wrong (risk)")
    points = risk_coverage(confidence, right)
    kept = np.unique(np.linspace(0, len(points) - 1, min(MOST_POINTS, len(points))).round().astype(int))
    axes.plot([points[i][0] for i in kept], [points[i][1] for i in kept], color=FIRST, label="by probability")
    axes.axhline(1 - right.mean(), color=QUIET, linestyle=":", label="chosen at random")
    if chosen is not None and chosen.precision is not None:
        risk = 1 - chosen.precision
        axes.plot(chosen.coverage, risk, "o", color=MARK, label=f"threshold {chosen.threshold:.3f}")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(bottom=0)
    _legend(axes, loc="best")
    return svg(figure, "risk against coverage")


def corruption_bars(names: Sequence[str], values: Sequence[Sequence[float]], clean: float) -> str:
    """Accuracy under each corruption, a bar a severity, with the accuracy of the photos as they are."""
    figure = _figure(7.6, 3.2)
    axes = figure.subplots()
    _axes(axes, "", "", "top-1")
    for severity in range(len(values[0])):
        places = [place + 0.27 * (severity - 1) for place in range(len(names))]
        heights, alpha = [row[severity] for row in values], 1 - 0.3 * severity
        axes.bar(places, heights, 0.25, color=FIRST, alpha=alpha, label=f"severity {severity + 1}")
    axes.axhline(clean, color=MARK, linestyle="--", linewidth=1, label="as they are")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(0, 1.02)
    _legend(axes, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    return svg(figure, "accuracy under corruptions")


def heat_map(shares: NDArray[np.floating]) -> str:
    """A confusion matrix of so many classes that their names have no room."""
    figure = _figure(8, 7.4)
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    _axes(axes, "", "answer (index of the class)", "true class")
    axes.grid(visible=False)
    bar = figure.colorbar(drawn, shrink=0.8)
    bar.set_label("share of the true class", color=INK)
    bar.ax.tick_params(colors=QUIET)
    return svg(figure, "confusion matrix")
