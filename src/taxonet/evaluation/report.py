"""The reports: one HTML file each that needs nothing else, to look at and to send."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from taxonet._version import __version__
from taxonet.data import Finding
from taxonet.errors import ImageError
from taxonet.evaluation import plots
from taxonet.evaluation.calibration import Calibration, softened
from taxonet.evaluation.corruptions import CORRUPTIONS
from taxonet.evaluation.evaluate import Evaluation, Outcome, Scores
from taxonet.evaluation.reliability import equal_width, error_over
from taxonet.evaluation.robustness import Robustness, corrupted, working_copy
from taxonet.evaluation.selection import Choice, targets_table
from taxonet.files import write_atomically
from taxonet.images import decode
from taxonet.inference import Classifier
from taxonet.inference.classifier import softmax

MISTAKES = 24
THUMBNAIL = 160  # pixels of the long side
SAMPLE = 224  # of the examples of corruption
MOST_LABELLED = 60  # classes up to which a confusion matrix names them
CONFUSIONS = 12  # pairs in the list of the most frequent


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
    calibration: Calibration | None = None
    explained: Mapping[Path, str] = field(default_factory=dict)  # wrong answers: what spoke for them, as data URIs
    warnings: Sequence[str] = ()  # of the check that training makes by itself
    budget: Mapping[str, Any] | None = None  # of time: what was chosen for it and why, and what was used


@dataclass(frozen=True)
class EvaluationReport:
    """What the report of an evaluation shows; `calibration` and `choice` are those of `calibrate`."""

    classifier: Classifier
    model: str
    data: str
    result: Evaluation
    calibration: Calibration | None = None
    choice: Choice | None = None


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix for a page: names and (count, share of the true class) a cell, or a drawing without names."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[int, float]]]]
    drawing: str
    left_out: int
    frequent: Sequence[tuple[str, str, int, float]]  # true class, answer, count, share of the class


def write_report(path: Path, report: TrainingReport) -> None:
    """Write the report of a run."""
    shown, validation = report.test or report.validation, report.validation
    calibrated: dict[str, Any] = {"reliability": (), "reliability_note": "", "selection": None}
    if validation.scores is not None:
        calibrated = _calibration(validation, report.calibration) | {
            "selection": _selection(validation, report.calibration)
        }
    _write(
        path,
        "report.html.j2",
        report=report,
        figures={"test": report.test, "validation": validation},
        shown=shown,
        shown_name="test" if report.test else "validation",
        curves=[plots.curves(report.log, "loss", "loss"), plots.curves(report.log, "top1", "top-1 accuracy")],
        **calibrated,
        **_answers(shown),
    )


def write_evaluation(path: Path, report: EvaluationReport) -> None:
    """Write the report of an evaluation or a calibration."""
    result, classifier = report.result, report.classifier
    calibration = report.calibration
    _write(
        path,
        "evaluation.html.j2",
        report=report,
        result=result,
        metrics=result.metrics,
        variant=classifier.info.variant,
        preprocessing=str(classifier.preprocessing),
        temperature=calibration.temperature if calibration else classifier.info.temperature,
        **_calibration(result, calibration),
        selection=_selection(result, calibration, report.choice),
        robustness=_robustness(result.robustness, classifier) if result.robustness else None,
        **_answers(result),
    )


def _write(path: Path, template: str, **values: Any) -> None:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("taxonet.evaluation", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template(template).render(version=__version__, **values)
    write_atomically(path, page.encode(errors="backslashreplace"))  # a file name may be no text


def _answers(shown: Evaluation) -> dict[str, Any]:
    """The confusion matrix and the worst mistakes."""
    return {
        "matrix": confusion(shown),
        "mistakes": [(outcome, thumbnail(outcome.sample.path)) for outcome in worst_mistakes(shown.outcomes)],
        "mistakes_in_all": sum(o.answer != o.sample.label for o in shown.outcomes),
    }


def _calibration(result: Evaluation, fitted: Calibration | None) -> dict[str, Any]:
    """Reliability with and without the temperature; one plot where there is none."""
    scores = result.scores
    assert scores is not None
    if fitted is None and scores.temperature == 1:
        note = "The bundle’s temperature is 1: the probabilities are the network’s own. taxonet calibrate fits one."
        return {"reliability": [_reliability(scores.probabilities, scores, "as it is")], "reliability_note": note}
    before = softened(scores.logits, 1.0)
    if fitted is None:
        after, name = scores.probabilities, f"temperature {scores.temperature:.3g}"
        views = ", averaged over the views" if result.augmented else ""
        note = f"Left the network’s own probabilities, right with the bundle’s temperature{views}."
    else:
        after, name = softened(scores.logits, fitted.held_out), "calibrated"
        note = _calibration_note(fitted)
    return {
        "reliability": [_reliability(before, scores, "uncalibrated"), _reliability(after, scores, name)],
        "reliability_note": note,
    }


def _calibration_note(fitted: Calibration) -> str:
    if fitted.reason:
        return f"The temperature stays {fitted.temperature:.3g}: {fitted.reason}."
    change = fitted.log_loss_change_ci
    interval = f" (95 % interval of the change {change[0]:+.3f} to {change[1]:+.3f})" if change else ""
    return (
        f"The bundle’s temperature is {fitted.temperature:.3g}, fitted on these {fitted.n} pictures. What is shown is "
        f"cross-fitted: each fifth of them has the temperature that the other fifths give. Log-loss "
        f"{fitted.before['log_loss']:.3f} without a temperature, {fitted.after['log_loss']:.3f} with it{interval}."
    )


def _reliability(probabilities: Any, scores: Scores, title: str) -> str:
    confidence = np.asarray(probabilities, np.float64).max(axis=1)
    bins = equal_width(confidence, probabilities.argmax(axis=1) == scores.targets)
    return plots.reliability(bins, title, error_over(bins))


def _selection(result: Evaluation, fitted: Calibration | None, choice: Choice | None = None) -> dict[str, Any]:
    """What thresholds do, on the probabilities that the bundle will answer with."""
    scores = result.scores
    assert scores is not None
    confidence = softmax(scores.logits, fitted.temperature).max(axis=1) if fitted else scores.confidence
    chosen = choice.chosen_on if choice else result.selected
    note = f"The bundle’s threshold is {chosen.threshold:.3f}." if chosen else "The bundle has none."
    return {
        "plot": plots.risk_against_coverage(confidence, scores.right, chosen),
        "table": targets_table(confidence, scores.right),
        "note": note,
    }


def _robustness(found: Robustness, classifier: Classifier) -> dict[str, Any]:
    rows, pictures = [], iter(_examples(found, classifier))
    for corruption in CORRUPTIONS:
        scores = found.of_corruption(corruption.name)
        cells = [(score, next(pictures, "")) for score in scores]
        rows.append({"name": corruption.name, "unit": corruption.unit, "cells": cells})
    values = [[score.top1 for score in found.of_corruption(corruption.name)] for corruption in CORRUPTIONS]
    plot = plots.corruption_bars([corruption.name for corruption in CORRUPTIONS], values, found.clean)
    return {"found": found, "rows": rows, "plot": plot}


def _examples(found: Robustness, classifier: Classifier) -> list[str]:
    """One photo under every condition, none where it has gone since."""
    path = found.example.path
    try:
        image = working_copy(path, classifier.preprocessing, classifier.limits)
    except ImageError:
        return []
    return [_data_uri(picture, SAMPLE) for picture in corrupted(image, path.name)]


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
    return _data_uri(image, THUMBNAIL)


def _data_uri(image: Image.Image, side: int) -> str:
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def confusion(evaluation: Evaluation) -> Confusion:
    """The confusion matrix of an evaluation; classes that occur nowhere are left out of a table."""
    counts = np.array(evaluation.metrics.confusion)
    names = [score.label for score in evaluation.metrics.per_class]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    frequent = _frequent(counts, shares, names)
    there = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    kept = np.arange(len(names)) if len(names) <= MOST_LABELLED else there
    if len(kept) > MOST_LABELLED:
        return Confusion((), (), plots.heat_map(shares), 0, frequent)
    rows = [(names[i], [(int(counts[i, j]), float(shares[i, j])) for j in kept]) for i in kept]
    return Confusion([names[i] for i in kept], rows, "", len(names) - len(kept), frequent)


def _frequent(counts: Any, shares: Any, names: Sequence[str]) -> list[tuple[str, str, int, float]]:
    wrong = counts * (1 - np.eye(len(names), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    pairs = (np.unravel_index(place, wrong.shape) for place in order)
    return [(names[i], names[j], int(wrong[i, j]), float(shares[i, j])) for i, j in pairs if wrong[i, j]]
