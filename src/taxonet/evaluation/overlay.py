"""An explanation as a picture: the photo with the part that the network saw, the map on it, and what both mean."""

import base64
import io
import os
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from taxonet.errors import ImageError
from taxonet.evaluation.evaluate import Outcome
from taxonet.evaluation.explanation import Explainer, Explanation
from taxonet.files import write_atomically
from taxonet.inference import Classifier

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEANING = {
    "gradcam": "speaks for the target",
    "occlusion": "fall of the target's probability when covered",
    "integrated_gradients": "speaks against (blue) and for (red)",
}
STRENGTH = 0.65  # opacity of the strongest place
SMOOTH = 1 / 50  # integrated gradients are drawn blurred by this share of the side: single pixels cannot be seen


def write_overlay(path: str | os.PathLike[str], explanation: Explanation) -> None:
    """Write the explanation as one PNG with its caption, atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(rect=(0, 0.15, 1, 0.85))  # below it stands the caption
    figure = Figure(figsize=(10, 5.1), dpi=110, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_photo(left, explanation)
    _draw_map(figure, right, explanation)
    figure.suptitle(caption(explanation), fontsize=9.5, ha="left", x=0.01, y=0.005, va="bottom", parse_math=False)
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # a class name may have letters that the font lacks; they show as boxes
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomically(path, buffer.getvalue())


def caption(explanation: Explanation) -> str:
    """What the picture shows, in lines: answer, target, method, and what the network saw of the photo."""
    e = explanation
    left, upper, right, lower = (round(v) for v in e.region)
    height, width = e.pixels.shape[:2]
    where = f", stage {e.layer}" if e.layer else ""
    asked = "the answer" if e.target == e.label else f"asked for; probability {e.target_probability:.3f}"
    lines = [
        f"answer: {e.label} {e.probability:.3f}     map for: {e.target} ({asked})     by {e.method}{where}",
        f"the network saw {width}×{height} pixels: x {left} to {right}, y {upper} to {lower} "
        f"of the photo's {e.photo_size[0]}×{e.photo_size[1]}",
        f"preprocessing: {e.preprocessing}",
    ]
    if not np.any(e.map):
        lines.append("the map is zero everywhere: at this stage no place raises the target")
    if e.residual is not None:
        lines.append(f"the shares add up to {float(e.map.sum()):.3f} of the logit, {e.residual:+.3f} off the exact sum")
    return "\n".join(lines)


def blend(explanation: Explanation) -> NDArray[np.uint8]:
    """The map laid on what the network saw: uint8 (H, W, 3); the stronger a place, the more of its colour."""
    from matplotlib import colormaps

    values, _, name = _scaled(explanation)
    signed = name == "RdBu_r"
    base = np.broadcast_to(explanation.pixels, (*explanation.pixels.shape[:2], 3)) / 255
    if signed:  # red and blue must not meet the photo's own
        base = np.broadcast_to(0.3 + 0.6 * base.mean(axis=2, keepdims=True), base.shape)
    colours = colormaps[name](values / 2 + 0.5 if signed else 0.25 + 0.75 * values)[..., :3]
    strength = (STRENGTH * np.abs(values) ** (1.0 if signed else 0.7))[..., None]
    mixed: NDArray[np.float64] = (1 - strength) * base + strength * colours
    return np.round(mixed * 255).astype(np.uint8)


def data_uri(explanation: Explanation, side: int) -> str:
    """The map laid on the picture, as a small JPEG in a data URI."""
    image = PIL.Image.fromarray(blend(explanation))
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def explain_mistakes(classifier: Classifier, outcomes: Sequence[Outcome], side: int, seconds: float) -> dict[Path, str]:
    """What spoke for each wrong answer, by Grad-CAM: data URIs by path, as many as `seconds` allow, in the order given.

    Raises:
        UsageError: captum is not installed, or the network has no stage that shows places.
    """
    explainer, deadline = Explainer(classifier), time.monotonic() + seconds
    found: dict[Path, str] = {}
    for outcome in outcomes:
        if time.monotonic() > deadline:
            break
        with suppress(ImageError):  # the file has gone since
            found[outcome.sample.path] = data_uri(explainer(outcome.sample.path), side)
    return found


def _scaled(explanation: Explanation) -> tuple[NDArray[np.float64], float, str]:
    """The map as it is drawn, in −1 to 1, the value that 1 stands for, and the colours."""
    values = explanation.map.astype(np.float64)
    if explanation.method == "integrated_gradients":
        from scipy.ndimage import gaussian_filter

        values = gaussian_filter(values, SMOOTH * min(values.shape))
    single = explanation.method == "integrated_gradients"  # few pixels hold most of it, and would hide the others
    limit = float(np.percentile(np.abs(values), 99.5 if single else 100))
    if limit > 0:
        values = np.clip(values / limit, -1, 1)
    return values, limit, "inferno" if explanation.method == "gradcam" else "RdBu_r"


def _draw_photo(axes: "Axes", explanation: Explanation) -> None:
    from matplotlib.patches import Rectangle

    width, height = explanation.photo_size
    left, upper, right, lower = explanation.region
    axes.imshow(np.asarray(explanation.photo), extent=(0, width, height, 0))
    for colour, line in (("black", 3.5), ("white", 1.5)):
        axes.add_patch(Rectangle((left, upper), right - left, lower - upper, fill=False, color=colour, linewidth=line))
    axes.set_xlim(min(0, left), max(width, right))
    axes.set_ylim(max(height, lower), min(0, upper))
    axes.set_title("the photo, and what the network saw of it", fontsize=10)
    axes.axis("off")


def _draw_map(figure: "Figure", axes: "Axes", explanation: Explanation) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    _, limit, name = _scaled(explanation)
    axes.imshow(blend(explanation))
    axes.set_title(f"evidence for {explanation.target}", fontsize=10, parse_math=False)
    axes.axis("off")
    low = -limit if name == "RdBu_r" else 0.0
    bar = figure.colorbar(ScalarMappable(Normalize(low, limit or 1.0), name), ax=axes, shrink=0.8)
    bar.set_label(MEANING[explanation.method], fontsize=9)
    bar.ax.tick_params(labelsize=8)
