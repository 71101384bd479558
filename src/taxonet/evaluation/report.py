"""The report of a training run: one HTML file that needs nothing else, to look at and to send."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from taxonet._version import __version__
from taxonet.data import Finding
from taxonet.errors import ImageError
from taxonet.evaluation.evaluate import Evaluation, Outcome
from taxonet.files import write_atomically
from taxonet.images import decode

MISTAKES = 24
THUMBNAIL = 160  # pixels of the long side
MOST_ANNOTATED = 16  # classes up to which a confusion matrix shows its numbers
MOST_LABELLED = 60  # classes up to which it names them


@dataclass(frozen=True)
class TrainingReport:
    """What a report shows."""

    model: str
    source: str
    command: str
    recipe: Mapping[str, Any]
    preprocessing: str
    log: Sequence[Mapping[str, Any]]
    counts: Mapping[str, int]
    origin: str
    validation: Evaluation
    test: Evaluation | None
    findings: Sequence[Finding]
    seconds: float
    explained: Mapping[Path, str] = field(default_factory=dict)  # wrong answers: what spoke for them, as data URIs


def write_report(path: Path, report: TrainingReport) -> None:
    """Write the report as one self-contained HTML file."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("taxonet.evaluation", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    shown = report.test or report.validation
    page = environment.get_template("report.html.j2").render(
        report=report,
        version=__version__,
        figures={"test": report.test, "validation": report.validation},
        shown=shown,
        shown_name="test" if report.test else "validation",
        curves=_curves(report.log),
        confusion=_confusion(shown),
        mistakes=[(outcome, thumbnail(outcome.sample.path)) for outcome in worst_mistakes(shown.outcomes)],
        mistakes_in_all=sum(o.answer != o.sample.label for o in shown.outcomes),
    )
    write_atomically(path, page.encode(errors="backslashreplace"))  # a file name may be no text


def worst_mistakes(outcomes: Sequence[Outcome], most: int = MISTAKES) -> list[Outcome]:
    """Wrong answers, the surest first."""
    wrong = [outcome for outcome in outcomes if outcome.answer != outcome.sample.label]
    return sorted(wrong, key=lambda outcome: -outcome.probability)[:most]


def thumbnail(path: Path) -> str:
    """A small picture as a data URI, empty where the file has gone since."""
    try:
        image = decode(path, short_side=THUMBNAIL)
    except ImageError:
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def svg(figure: Any, title: str) -> str:
    """A figure as inline SVG; on its own canvas, so that no global state of matplotlib is touched."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    figure.set_canvas(FigureCanvasSVG(figure))
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawing = buffer.getvalue()
    start = drawing.index("<svg")
    label = html.escape(title, quote=True)
    return f'<svg role="img" aria-label="{label}" ' + drawing[start + len("<svg ") :]


def _curves(log: Sequence[Mapping[str, Any]]) -> str:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    epochs = [line["epoch"] for line in log]
    for axes, key, title in zip(figure.subplots(1, 2), ("loss", "top1"), ("loss", "top-1 accuracy"), strict=True):
        for part, name in (("train", "training"), ("val", "validation")):
            axes.plot(epochs, [line[f"{part}_{key}"] for line in log], marker="o", markersize=3, label=name)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return svg(figure, "loss and accuracy by epoch")


def _confusion(evaluation: Evaluation) -> str:
    import numpy as np
    from matplotlib.figure import Figure

    counts = np.array(evaluation.metrics.confusion)
    names = [score.label for score in evaluation.metrics.per_class]
    size = min(11.0, 2.6 + 0.5 * len(names))
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, label="share of the true class", shrink=0.8)
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")
    if len(names) <= MOST_LABELLED:
        plain = {"parse_math": False}  # a class may be called $5
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", **plain)
        axes.set_yticks(range(len(names)), names, **plain)
    if len(names) <= MOST_ANNOTATED:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9)
    return svg(figure, "confusion matrix")
