"""Figures that go to TensorBoard and MLflow: those of log.jsonl, once each, also after a resume."""

import json
import signal
import sys

import pytest
from tests.training.conftest import QUICK

import taxonet
from taxonet.errors import UsageError
from taxonet.training import loop
from taxonet.training.loggers import LOGGERS, figures_of, open_loggers

RUN = {**QUICK, "recipe": "scratch", "epochs": 2}


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def train_in_two_goes(colours, out, monkeypatch, log):
    """A run that is stopped in its second epoch and goes on."""
    original, count = loop.step, [0]

    def step(*arguments):
        count[0] += 1
        if count[0] == 5:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", step)
        assert taxonet.train(colours, out=out, log=log, **RUN).interrupted
    return taxonet.train(colours, out=out, resume=True)  # the log that it began with


def test_tensorboard_gets_the_figures_of_the_log(colours, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    result = train_in_two_goes(colours, tmp_path / "run", monkeypatch, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(result.run / "tensorboard")).Reload()
    for key, tag in (("val_loss", "loss/val"), ("train_top1", "top1/train"), ("lr", "lr")):
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        assert found == [(line["epoch"], pytest.approx(line[key], rel=1e-6)) for line in log_of(result.run)]


def test_mlflow_gets_the_figures_of_the_log_in_one_run(colours, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = train_in_two_goes(colours, tmp_path / "run", monkeypatch, "mlflow")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{result.run / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "taxonet"]
    (run,) = client.search_runs([experiment.experiment_id])
    found = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "val_loss")]
    assert sorted(found) == [(line["epoch"], pytest.approx(line["val_loss"])) for line in log_of(result.run)]
    assert (run.data.params["epochs"], run.info.status) == ("2", "FINISHED")
    assert run.data.metrics["validation_top1"] == pytest.approx(result.validation.metrics.top1)


class Unreachable:
    """A logger whose server does not answer."""

    calls = 0

    def __init__(self, run, facts):
        self.run = run

    def epoch(self, line):
        Unreachable.calls += 1
        assert any((self.run / "last").iterdir())  # the checkpoint is there
        raise ConnectionError("no answer\nfrom the server")

    def close(self, metrics):
        raise AssertionError("it was off")


def test_a_logger_that_fails_is_off_and_the_run_goes_on(colours, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(LOGGERS, "mlflow", Unreachable)
    result = taxonet.train(colours, out=tmp_path / "run", log="mlflow", **RUN)
    assert Unreachable.calls == 1
    assert len(log_of(result.run)) == 2
    assert result.bundle.is_file()
    (warning,) = [record.getMessage() for record in caplog.records if "mlflow" in record.getMessage()]
    assert warning.startswith("the log to mlflow failed and is off from here on")
    assert warning.endswith("(ConnectionError: no answer)")


def test_a_run_that_goes_on_keeps_its_log_unless_it_is_turned_off(colours, tmp_path, monkeypatch):
    opened = []

    class Notes(Unreachable):
        def epoch(self, line):
            opened.append(line["epoch"])

        def close(self, metrics):
            pass

    monkeypatch.setitem(LOGGERS, "mlflow", Notes)
    train_in_two_goes(colours, tmp_path / "run", monkeypatch, "mlflow")
    assert opened == [1, 2]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["log"] == "mlflow"
    monkeypatch.setitem(LOGGERS, "mlflow", None)  # not to be opened
    taxonet.train(colours, out=tmp_path / "run", resume=True, log="")
    taxonet.train(colours, out=tmp_path / "run", resume=True)  # it stays off


def test_a_log_that_a_run_gets_as_it_goes_on_is_kept(colours, tmp_path, monkeypatch):
    opened = []

    class Notes(Unreachable):
        def __init__(self, run, facts):
            opened.append(run)

        def close(self, metrics):
            pass

    taxonet.train(colours, out=tmp_path / "run", **RUN)
    monkeypatch.setitem(LOGGERS, "mlflow", Notes)
    for log in ("mlflow", None):
        opened.clear()
        taxonet.train(colours, out=tmp_path / "run", resume=True, log=log)
        assert tmp_path / "run" in opened


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")])
def test_a_package_that_is_not_there_is_named_before_any_work(name, module, colours, tmp_path, monkeypatch):
    for loaded in [key for key in sys.modules if key == module or key.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"logging to {name} needs a package more: pip install 'taxonet\[{name}\]'"):
        taxonet.train(colours, out=tmp_path / "run", log=name, **RUN)
    assert not (tmp_path / "run").exists()


def test_nothing_is_imported_that_nobody_asked_for(tmp_path):
    assert open_loggers("", tmp_path, {}).named == {}
    assert figures_of({"epoch": 3, "val_loss": 0.5, "note": "x"}) == {"val_loss": 0.5}
    assert list(tmp_path.iterdir()) == []
