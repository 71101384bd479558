"""What a run gives back, and its tables."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxonet.checking import Issue
from taxonet.data import Finding, Sample
from taxonet.evaluation import Evaluation
from taxonet.files import write_atomically
from taxonet.training.pictures import size_of
from taxonet.training.recipe import Recipe

BUNDLE, REPORT = "model.safetensors", "report.html"


@dataclass(frozen=True)
class TrainResult:
    """What a run gave: its files, its figures on validation (and test) pictures, and what was left out of it."""

    run: Path
    bundle: Path
    report: Path
    recipe: Recipe
    validation: Evaluation | None
    test: Evaluation | None
    findings: tuple[Finding, ...]
    interrupted: bool = False
    warnings: tuple[Issue, ...] = ()  # of the check that training makes by itself
    budget: Mapping[str, Any] | None = None  # with a budget of time: what was chosen and why, and the time used

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        parts = {"validation": self.validation, "test": self.test}
        return {
            "run": str(self.run),
            "bundle": str(self.bundle),
            "report": str(self.report),
            "interrupted": self.interrupted,
            **{name: part.as_dict() if part else None for name, part in parts.items()},
            "excluded": [{"path": f.path, "error": f.reason} for f in self.findings],
            "warnings": [issue.as_dict() for issue in self.warnings],
            **({"budget": dict(self.budget)} if self.budget else {}),
        }


def write_table(path: Path, samples: Sequence[Sample]) -> None:
    """A CSV that `taxonet evaluate` reads; absolute paths, so that the run's folder may move, and each file's size."""
    with io.StringIO(newline="") as text:
        writer = csv.writer(text)
        writer.writerow(["path", "label", "bytes"])
        writer.writerows([str(x.path.absolute()), x.label, size_of(x.path)] for x in samples)
        write_atomically(path, text.getvalue().encode(errors="surrogateescape"))


def unique(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Each finding once, in order."""
    return tuple(dict.fromkeys(findings))


def headline(evaluation: Evaluation) -> dict[str, Any]:
    """The figures that a bundle keeps."""
    metrics = evaluation.metrics
    return {
        "n": metrics.n,
        "top1": metrics.top1,
        "top1_ci": list(metrics.top1_ci),
        "top5": metrics.top5,
        "ece": metrics.ece,
    }
