"""The page of a comparison: one HTML file that needs nothing else, for phone and desk, light and dark."""

import os
from collections.abc import Sequence
from typing import Any

import jinja2

from taxonet._version import __version__
from taxonet.evaluation.comparison import Compared, Comparison
from taxonet.evaluation.plots import svg
from taxonet.evaluation.report import thumbnail
from taxonet.figures import short_count
from taxonet.files import write_atomically

SHOWN = 60  # photos on which the models disagree
INK = "#010203"  # drawn in the page's own colour of text, light or dark


def write_comparison(
    path: str | os.PathLike[str], comparison: Comparison, command: str = "", notes: Sequence[str] = ()
) -> None:
    """Write the page, atomically; `command` is what repeats it, `notes` are lines on how the models came about."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("taxonet.evaluation", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    shown = comparison.disagreements[:SHOWN]
    page = environment.get_template("comparison.html.j2").render(
        comparison=comparison,
        best=max(model.metrics.top1 for model in comparison.models),
        plots=_plots(comparison.models),
        names=[model.name for model in comparison.models],
        shown=[(d, thumbnail(d.sample.path), list(zip(d.answers, d.right, strict=True))) for d in shown],
        size=file_size,
        count=short_count,
        command=command,
        notes=notes,
        version=__version__,
    )
    write_atomically(path, page.encode(errors="backslashreplace"))  # a file name may be no text


def file_size(count: int | None) -> str:
    """Bytes for people: 13.5 MB."""
    return "–" if count is None else f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _plots(models: Sequence[Compared]) -> list[str]:
    """Accuracy with its interval against milliseconds and against size, one drawing each; the front is joined."""
    panels = []
    if all(model.speed for model in models):
        panels.append(("milliseconds a photo, file to answer", [_milliseconds(m) for m in models], "best_for_speed"))
    if all(model.bytes is not None for model in models):
        panels.append(("megabytes of the file", [(m.bytes or 0) / 1e6 for m in models], "best_for_size"))
    elif all(model.params is not None for model in models):
        panels.append(("million parameters", [(m.params or 0) / 1e6 for m in models], "best_for_size"))
    return [_drawing(title, models, costs, [bool(getattr(m, flag)) for m in models]) for title, costs, flag in panels]


def _drawing(title: str, models: Sequence[Compared], costs: Sequence[float], front: Sequence[bool]) -> str:
    from matplotlib.figure import Figure

    rows = -(-len(models) // 2)
    figure = Figure(figsize=(5.2, 3.6 + 0.22 * rows), layout="constrained")
    axes = figure.subplots()
    _panel(axes, models, costs, front)
    axes.set_xlabel(title, color=INK)
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, labelcolor=INK)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a model may be called $5
    figure.patch.set_alpha(0)
    return svg(figure, f"top-1 against {title}").replace(INK, "currentColor")


def _milliseconds(model: Compared) -> float:
    return model.speed.single.median if model.speed else 0.0


def _panel(axes: Any, models: Sequence[Compared], costs: Sequence[float], front: Sequence[bool]) -> None:
    from matplotlib import colormaps

    colours = [colormaps["tab10"](i) for i in range(10)]
    for i, (model, cost, best) in enumerate(zip(models, costs, front, strict=True)):
        top1, (low, high) = model.metrics.top1, model.metrics.top1_ci
        colour = colours[i % len(colours)]
        axes.errorbar(
            cost,
            100 * top1,
            yerr=[[100 * (top1 - low)], [100 * (high - top1)]],
            fmt="osD^vP*X"[i // len(colours) % 8],
            color=colour,
            markerfacecolor=colour if best else "none",
            capsize=3,
            label=model.name if not model.name.startswith("_") else f" {model.name}",
        )
    joined = sorted((c, 100 * m.metrics.top1) for c, m, best in zip(costs, models, front, strict=True) if best)
    axes.plot(*zip(*joined, strict=True), color=INK, alpha=0.5, linewidth=1, linestyle="--", zorder=0)
    axes.set_xlim(0, 1.15 * max(costs))
    axes.set_ylabel("top-1, %", color=INK)
    axes.grid(alpha=0.25, color=INK)
    axes.patch.set_alpha(0)
    axes.tick_params(colors=INK)
    for spine in axes.spines.values():
        spine.set_color(INK)
