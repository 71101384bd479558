"""Where the figures of a run go besides its log.jsonl: TensorBoard and MLflow, behind one small protocol.

    taxonet train photos --out run --log tensorboard,mlflow

Both are extras: `pip install 'taxonet[tensorboard]'`, `pip install 'taxonet[mlflow]'`; neither is imported unasked.
"""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from taxonet.errors import UsageError, nearest

log = logging.getLogger(__name__)


class RunLogger(Protocol):
    """Who receives the figures of a run."""

    def epoch(self, line: Mapping[str, Any]) -> None:
        """One line of log.jsonl; a resumed run may give an epoch again."""

    def close(self, metrics: Mapping[str, float]) -> None:
        """The run is over, with these final figures, or interrupted, with none."""


class Loggers:
    """The loggers of a run. One that fails is told of once and is off from then on: the run goes on without it."""

    def __init__(self, named: Mapping[str, RunLogger] | None = None) -> None:
        self.named = dict(named or {})

    def epoch(self, line: Mapping[str, Any]) -> None:
        """One line of log.jsonl, to all."""
        self._each(lambda logger: logger.epoch(line))

    def close(self, metrics: Mapping[str, float]) -> None:
        """The run is over, with these final figures, or interrupted, with none."""
        self._each(lambda logger: logger.close(metrics))

    def _each(self, work: Callable[[RunLogger], None]) -> None:
        for name, logger in list(self.named.items()):
            try:
                work(logger)
            except Exception as error:  # whatever a server or another package makes of it
                del self.named[name]
                reason = (str(error).splitlines() or [""])[0]
                log.warning(
                    "the log to %s failed and is off from here on, log.jsonl has all figures (%s: %s)",
                    name,
                    type(error).__name__,
                    reason,
                )


def open_loggers(words: str, run: Path, facts: Mapping[str, Any]) -> Loggers:
    """The loggers that `words` names with commas between; `facts` are the recipe and what the run is about.

    Raises:
        UsageError: an unknown logger, or its package is not installed.
    """
    names = [word.strip() for word in words.split(",") if word.strip()]
    for name in names:
        if name not in LOGGERS:
            raise UsageError(f"there is no logger '{name}', it must be {' or '.join(LOGGERS)}{nearest(name, LOGGERS)}")
    loggers = {}
    for name in dict.fromkeys(names):
        try:
            loggers[name] = LOGGERS[name](run, facts)
        except ImportError as error:
            raise UsageError(f"logging to {name} needs a package more: pip install 'taxonet[{name}]'") from error
    return Loggers(loggers)


def figures_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a log line, but for the epoch."""
    return {key: float(value) for key, value in line.items() if key != "epoch" and isinstance(value, int | float)}


class TensorBoard:
    """Event files in the run's folder `tensorboard/`: one step an epoch."""

    def __init__(self, run: Path, facts: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self.text = run / "tensorboard", "\n".join(f"    {k} = {v}" for k, v in facts.items())
        self.writer_class = SummaryWriter
        self.writer: Any = None

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Scalars of an epoch; what an interrupted run wrote after it is purged."""
        number = int(line["epoch"])
        if self.writer is None:
            self.writer = self.writer_class(str(self.folder), purge_step=number)
            self.writer.add_text("recipe", self.text, number)
        for key, value in figures_of(line).items():
            part, _, rest = key.partition("_")
            self.writer.add_scalar(f"{rest}/{part}" if part in ("train", "val") else key, value, number)
        self.writer.flush()

    def close(self, metrics: Mapping[str, float]) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()


class MLflow:
    """One MLflow run: parameters, figures by epoch, final figures. A resumed run goes on with the same one.

    It goes where MLFLOW_TRACKING_URI says, else into the file `mlflow.db` of the run's folder. MLflow's own usage
    reports are turned off unless the environment says otherwise.
    """

    def __init__(self, run: Path, facts: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(run / 'mlflow.db').absolute()}"
        self.client_of: Callable[[], Any] = lambda: MlflowClient(uri)
        self.run, self.facts, self.note = run, facts, run / "mlflow_run.txt"
        self.client: Any = None
        self.identity = ""

    def _begin(self) -> None:
        self.client = self.client_of()
        if self.note.exists():
            self.identity = self.note.read_text().strip()
            self.client.set_terminated(self.identity, "RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "taxonet")
        experiment = self.client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.identity = self.client.create_run(number, run_name=self.run.name).info.run_id
        self.note.write_text(self.identity)
        for key, value in self.facts.items():
            self.client.log_param(self.identity, key, str(value)[:500])

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Figures of an epoch."""
        if self.client is None:
            self._begin()
        for key, value in figures_of(line).items():
            self.client.log_metric(self.identity, key, value, step=int(line["epoch"]))

    def close(self, metrics: Mapping[str, float]) -> None:
        """Final figures; without any the run counts as killed, until it goes on."""
        if self.client is None:
            return
        for key, value in metrics.items():
            self.client.log_metric(self.identity, key, value)
        self.client.set_terminated(self.identity, "FINISHED" if metrics else "KILLED")


LOGGERS: dict[str, Callable[[Path, Mapping[str, Any]], RunLogger]] = {"tensorboard": TensorBoard, "mlflow": MLflow}
