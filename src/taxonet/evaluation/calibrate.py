"""`calibrate`: fit a bundle's temperature, and choose its threshold, on pictures it was not trained on."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from taxonet.data import Finding
from taxonet.data.trained_on import count_trained_on
from taxonet.errors import UsageError
from taxonet.evaluation.calibration import Calibration, fit_calibration, softened
from taxonet.evaluation.evaluate import Evaluation, Progress, Scores, evaluate_samples, read_split, summary
from taxonet.evaluation.selection import Choice, check_target, choose_threshold, fewest_answers
from taxonet.inference import Classifier, load
from taxonet.inference.artefacts import is_artefact
from taxonet.inference.classifier import softmax
from taxonet.weights.rewriting import write_calibration


@dataclass(frozen=True)
class CalibrationResult:
    """What `calibrate` found and wrote.

    `bundle` is the file that now holds `temperature` and `threshold`, None where a target could not be reached and
    nothing was written; `problem` then says why. `evaluation` has the figures with cross-fitted temperatures.
    """

    bundle: Path | None
    split: str
    calibration: Calibration
    temperature_before: float  # that the bundle had
    threshold: float | None
    choice: Choice | None
    note: str | None
    problem: str | None
    evaluation: Evaluation  # whose `trained_on` and `warning` say whether the pictures were trained on
    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "bundle": str(self.bundle) if self.bundle else None,
            "split": self.split,
            **self.calibration.as_dict(),
            "temperature_before": self.temperature_before,
            "threshold": self.threshold,
            "selection": self.choice.as_dict() if self.choice else None,
            "note": self.note,
            "problem": self.problem,
            "trained_on": self.evaluation.trained_on,
            "errors": [{"path": finding.path, "error": finding.reason} for finding in self.findings],
        }


def calibrate(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    split: str | None = None,
    target_precision: float | None = None,
    target_coverage: float | None = None,
    engine: str = "auto",
    html: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> CalibrationResult:
    """Fit a bundle's temperature, choose its threshold, and store both in it; nothing else in the bundle changes.

    Args:
        model: the bundle's path; a catalogue name needs `out`.
        data: labelled pictures that the model was not trained on.
        out: where to write; by default the bundle itself, in one step.
        split: "train", "val" or "test"; by default "val" if the data has it, else everything. Pictures that calibrate
            cannot also test: keep the test pictures out.
        target_precision: choose the threshold under which `predict` says "none of these" so that this share of the
            answers is right, with as many answers as that allows.
        target_coverage: choose it so that this share of the pictures is answered.
        engine: what runs the model.
        html: where to write a report.
        progress: called with (pictures done, pictures in all).

    Raises:
        UsageError: both targets, one that is no share, or a catalogue name without `out`.
        DataError: the data cannot be used.
        BundleError: the file is no bundle.
    """
    target = _target(target_precision, target_coverage)
    path = _bundle_path(model, out)
    classifier = load(model, engine)
    chosen, samples, findings = read_split(data, split, prefer=("val",))
    raw = evaluate_samples(classifier, samples, progress)
    assert raw.scores is not None
    calibration = fit_calibration(raw.scores.logits, raw.scores.targets, classifier.info.temperature)
    choice = _choose(raw.scores, calibration.temperature, target)
    problem = _problem(target, raw.scores.right) if target and choice is None else None
    threshold, note = _threshold(classifier, calibration, choice)
    if problem is None:
        write_calibration(model, path, calibration.temperature, threshold)
    seen = count_trained_on(model, (outcome.sample for outcome in raw.outcomes))
    shown = replace(held_out(classifier, raw, calibration), split=chosen, threshold=threshold, trained_on=seen)
    written, before = None if problem else path, classifier.info.temperature
    result = CalibrationResult(
        written, chosen, calibration, before, threshold, choice, note, problem, shown, (*findings, *raw.findings)
    )
    if html is not None:
        _write_page(Path(html), classifier, (os.fspath(model), os.fspath(data)), result)
    return result


def _write_page(html: Path, classifier: Classifier, names: tuple[str, str], result: CalibrationResult) -> None:
    from taxonet.evaluation.report import EvaluationReport, write_evaluation

    write_evaluation(html, EvaluationReport(classifier, *names, result.evaluation, result.calibration, result.choice))


def held_out(classifier: Classifier, raw: Evaluation, fitted: Calibration) -> Evaluation:
    """The evaluation with each picture at the temperature that the other folds give: answers stay, sureness changes."""
    assert raw.scores is not None
    probabilities = softened(raw.scores.logits, fitted.held_out)
    scores = Scores(probabilities, raw.scores.logits, raw.scores.targets, fitted.temperature)
    found = summary(classifier, scores, [outcome.sample for outcome in raw.outcomes], raw.findings)
    return replace(found, split=raw.split, seconds=raw.seconds)


def _target(precision: float | None, coverage: float | None) -> tuple[str, float] | None:
    if precision is not None and coverage is not None:
        raise UsageError("target_precision and target_coverage exclude each other: one threshold serves one target")
    for name, wanted in (("precision", precision), ("coverage", coverage)):
        if wanted is not None:
            check_target(name, wanted)
            return name, wanted
    return None


def _bundle_path(model: str | os.PathLike[str], out: str | os.PathLike[str] | None) -> Path:
    if is_artefact(model):
        raise UsageError(f"{model} is an export, which nothing rewrites: calibrate its bundle and export it again")
    if out is not None:
        return Path(out)
    if not Path(model).is_file() and Path(model).suffix != ".safetensors":  # a missing bundle is told by `load`
        raise UsageError(f"'{model}' is no file that could be rewritten, say where to write the bundle with --out")
    return Path(model)


def _choose(scores: Scores, temperature: float, target: tuple[str, float] | None) -> Choice | None:
    if target is None:
        return None
    confidence = softmax(scores.logits, temperature).max(axis=1)  # the very numbers that predict will compare
    return choose_threshold(confidence, scores.right, target=target[0], wanted=target[1])


def _problem(target: tuple[str, float], right: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> str:
    fewest = fewest_answers(target[1])
    if target[0] == "precision" and len(right) < fewest:
        return (
            f"a precision of {target[1]:g} is told by at least {fewest} answers, "
            f"there are {len(right)} pictures; nothing was written"
        )
    least = f" that leaves at least {fewest} answers" if target[0] == "precision" else ""
    return (
        f"no threshold{least} reaches a {target[0]} of {target[1]:g} on these {len(right)} pictures "
        f"(without one it is {right.mean():.3f}); nothing was written"
    )


def _threshold(
    classifier: Classifier, calibration: Calibration, choice: Choice | None
) -> tuple[float | None, str | None]:
    """The threshold to store, and what is to be said about it."""
    old = classifier.info.threshold
    if choice is not None:
        unused = "every picture may be answered, the threshold is 0" if choice.threshold == 0 else None
        return choice.threshold, unused
    if old is None or calibration.temperature == classifier.info.temperature:
        return old, None
    return None, f"the threshold {old:g} belonged to the old temperature and is removed; a target chooses a new one"
