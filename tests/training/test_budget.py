"""A budget of time: how it is written, the rule that spends it, the clock that holds it, and whole runs."""

import json
import shutil
import sys
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tests.training.conftest import write_colours

import taxonet
from taxonet.cli.app import main
from taxonet.errors import TrainingError, UsageError
from taxonet.training import loop, train_and_compare
from taxonet.training.budget import Budget, table
from taxonet.training.budget_rule import MARGIN, Counts, Option, Rates, best_of, judge, needed
from taxonet.training.candidates import Wish, candidates, networks_elsewhere, options_of, short_side, sizes_of
from taxonet.training.deadline import Deadline, last_step, place_in_schedule
from taxonet.training.duration import enough, parse_duration, spoken
from taxonet.training.recipe import given_values
from taxonet.training.screening import prepare
from taxonet.weights.bundle import read_tensors

SMALL = {"model": "densenet_bc_22_12", "image_size": 16, "batch_size": 16}


# How a time is written.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2h", 7200), ("1.5h", 5400), ("1h00m30s", 3630), (" 10M ", 600)],
)
def test_a_time_with_its_unit(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("600", "did you mean '600s' or '600m'"),
        (600, "did you mean '600s' or '600m'"),
        ("10 minutes", "did you mean '10m'"),
        ("10min", "did you mean '10m'"),
        ("1 hour 30 min", "did you mean '1h30m'"),
        ("1:30:00", "did you mean '1h30m'"),
        ("5:30", "did you mean '5m30s'"),
        ("soon", "a time with its unit: 90s, 10m, 1h30m"),
        ("", "a time with its unit"),
        ("-5m", "a time with its unit"),
        ("5s", "must be from 10s to 720h"),
        ("31d", "a time with its unit"),
        ("800h", "must be from 10s to 720h"),
    ],
)
def test_another_spelling_is_refused_with_the_right_one(text, hint):
    with pytest.raises(UsageError, match=hint):
        parse_duration(text)


def test_what_is_said_can_be_written_back():
    for seconds in (12, 99, 100, 600, 3599, 3600, 5405):
        assert abs(parse_duration(spoken(seconds)) - seconds) < 60
    assert parse_duration(enough(301)) >= 301
    assert enough(41) == "50s"


# The rule, on rates that were not measured.

COUNTS = Counts(train=432, val=108, test=0, classes=6)
RATES = Rates(0.005, 0.01, 0.01, 0.05, 0.5, 1.0, 0.001, True, True)
TUNED = Option("lite", "lite.w", 224, 224, "finetune", "finetune", 75.0, 9, 2, 18, True, 1280)


def option(**values):
    return replace(TUNED, **values)


def test_the_epochs_are_as_many_as_fit():
    row = judge(TUNED, RATES, COUNTS, 200.0, 5.0)
    this, more = (needed(TUNED, RATES, COUNTS, epochs, 5.0) for epochs in (row.epochs, row.epochs + 1))
    assert this <= MARGIN * 200 < more
    assert judge(TUNED, RATES, COUNTS, 1e6, 5.0).epochs == 18
    assert [judge(TUNED, RATES, COUNTS, left, 5.0).epochs for left in (10, 90, 120, 300)] == sorted(
        judge(TUNED, RATES, COUNTS, left, 5.0).epochs for left in (10, 90, 120, 300)
    )


def test_what_does_not_fit_says_what_it_would_take():
    row = judge(TUNED, RATES, COUNTS, 30.0, 5.0)
    assert row.epochs == 0
    assert "2 epochs would take 59s, 28s are left" in row.obstacle
    assert best_of([row]) is None


def test_a_little_time_goes_to_the_classifier_alone_and_more_to_the_better_network():
    features = option(recipe="features", kind="features", epochs=1, least=1, most=1, head_first=False)
    better = option(network="larger", accuracy=77.5)
    twice = replace(RATES, step=0.1, feature=0.02)
    rates = {"lite": RATES, "larger": twice}

    def chosen(left):
        best = best_of(judge(o, rates[o.network], COUNTS, left, 5.0) for o in (features, TUNED, better))
        return None if best is None else (best.option.network, best.option.recipe)

    assert chosen(10) is None
    assert chosen(40) == ("lite", "features")
    assert chosen(80) == ("lite", "finetune")
    assert chosen(900) == ("larger", "finetune")


def test_a_smaller_picture_is_taken_where_it_buys_many_epochs():
    small = option(size=192)
    quick = replace(RATES, step=0.015, feature=0.005)
    crowded, roomy = (
        best_of([judge(TUNED, RATES, COUNTS, left, 5.0), judge(small, quick, COUNTS, left, 5.0)]).option.size
        for left in (72, 1000)
    )
    assert (crowded, roomy) == (192, 224)


def test_of_two_alike_the_quicker_one():
    slow = option(network="slow")
    rows = [judge(slow, replace(RATES, decode=0.02), COUNTS, 1e5, 5.0), judge(TUNED, RATES, COUNTS, 1e5, 5.0)]
    assert best_of(rows).option.network == "lite"


def test_fresh_weights_want_pictures():
    fresh = option(kind="scratch", head_first=False, least=1, most=300)
    few, many = (judge(fresh, RATES, COUNTS, left, 5.0) for left in (60, 3000))
    assert many.worth > few.worth + 5
    assert "pictures seen" in many.terms


# What there is to choose from.


@pytest.fixture(scope="module")
def split(colours):
    return prepare(colours, 0.2, 0, None, True).split


def test_candidates_are_the_networks_whose_weights_are_here(split):
    names = {c.network for c in candidates(Wish(None, None, "auto", {}), split)}
    assert "efficientnet_lite0" in names  # installed
    assert "resnet50" not in names  # in the catalogue, and nowhere here
    assert "resnet20_cifar" in names  # small pictures
    assert short_side(split.train) == 20
    assert "resnet50" in {entry.variant for entry in networks_elsewhere(300)}


def test_what_the_user_gives_is_kept(split, tmp_path):
    wish = Wish("efficientnet_lite0", "features", "auto", {"image_size": 128})
    (only,) = candidates(wish, split)
    options = options_of(only, wish, split, sizes_of(only, 224))
    assert [(o.size, o.recipe) for o in options] == [(128, "features")]
    wish = Wish(None, None, "auto", {"epochs": 7})
    lite = next(c for c in candidates(wish, split) if c.network == "efficientnet_lite0")
    tuned = options_of(lite, wish, split, sizes_of(lite, 224))
    assert {o.recipe for o in tuned} == {"finetune"}  # features has no epochs
    assert {(o.least, o.most) for o in tuned} == {(7, 7)}
    assert [o.size for o in tuned] == [224, 192, 160, 128, 96]
    (tmp_path / "mine.toml").write_text("lr = 0.01\nepochs = 5\n")
    assert given_values(tmp_path / "mine.toml") == {"lr": 0.01, "epochs": 5}
    assert given_values("finetune") == {}
    with pytest.raises(UsageError, match="add --model NAME"):
        candidates(Wish(None, None, "densenet121.tv_in1k", {}), split)


# The clock.


class Clock:
    """A clock that is told the time."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def running(steps, seconds, budget=100.0, planned=1.0):
    clock = Clock()
    deadline = Deadline(budget, 0.0, planned, between=1.0, finish=5.0, clock=clock)
    for _ in range(steps):
        clock.now += seconds
        deadline.saw_step(seconds)
    return deadline, clock


def test_a_run_that_keeps_its_pace_is_left_alone():
    for done in range(80):
        deadline, _ = running(done, 1.0)
        assert deadline.new_end(done, 80, 20) is None


def test_a_slow_run_is_brought_back_into_its_budget():
    deadline, clock = running(20, 2.0)
    end = deadline.new_end(20, 80, 20)
    assert 20 < end < 80
    left = (end - 20) * 2.0 + 2 * 1.0 + 5.0
    assert clock.now + left == pytest.approx(99, abs=3)
    assert "late: the end would come after" in deadline.sentence(20, 80, end, 20)


def test_a_short_slow_moment_is_no_reason():
    deadline, _ = running(30, 1.0)
    deadline.saw_step(2.0)
    assert deadline.new_end(31, 80, 20) is None


def test_a_run_without_time_ends_where_it_is():
    deadline, clock = running(20, 1.0)
    clock.now = 120.0
    assert deadline.new_end(20, 80, 20) == 20


def test_time_lost_between_two_processes_is_not_counted():
    deadline, clock = running(20, 1.0)
    clock.now = 5000.0
    deadline.go_on(20.0)
    assert deadline.used() == 20.0
    assert deadline.new_end(20, 80, 20) is None


def test_after_a_cut_the_schedule_still_ends_at_its_end():
    cuts = [[20, 50], [40, 45]]
    places = [place_in_schedule(step, cuts, 80) for step in range(46)]
    assert places[:21] == list(range(21))
    assert all(b > a for a, b in pairwise(places))
    assert places[-1] == 80
    assert last_step(cuts, 80) == 45
    assert [place_in_schedule(step, [], 80) for step in (0, 7.5, 80)] == [0, 7.5, 80]


# Whole runs.


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def same_bits(first, second):
    a, b = read_tensors(first), read_tensors(second)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def run(colours, tmp_path_factory):
    return taxonet.train(colours, out=tmp_path_factory.mktemp("budget") / "run", budget="15m", epochs=3, **SMALL)


def test_a_run_says_what_was_chosen_and_why(run):
    kept = json.loads((run.run / "run.json").read_text())["budget"]
    assert kept["chosen"]["network"] == "densenet_bc_22_12"
    assert kept["chosen"]["measured"]
    assert (kept["chosen"]["epochs"], run.recipe.epochs) == (3, 3)
    assert kept["asked"] == run.as_dict()["budget"]["asked"] == "15m"
    assert 0 < run.budget["used"] < 900
    assert run.budget["shortened_to_epochs"] is None
    page = run.report.read_text()
    assert "<h2>Budget</h2>" in page
    assert "(chosen)" in page
    assert any("chosen: " in line for line in table(Budget(**kept)))


def test_the_choice_alone_makes_the_same_network(run, colours, tmp_path):
    plain = taxonet.train(colours, out=tmp_path / "plain", epochs=3, **SMALL)
    assert same_bits(run.bundle, plain.bundle)


def test_a_run_that_goes_on_keeps_its_choice_and_measures_nothing(run, colours, tmp_path, monkeypatch):
    class Stop(Exception):  # noqa: N818
        pass

    def die(training):
        raise Stop

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_finish_epoch", die)
        with pytest.raises(Stop):
            taxonet.train(colours, out=out, budget="15m", epochs=3, checkpoint_seconds=0.0, **SMALL)
    with pytest.raises(UsageError, match=r"has the budget 15m, not 20m; it keeps what it has"):
        taxonet.train(colours, out=out, budget="20m", resume=True)
    from taxonet.training import budget

    monkeypatch.setattr(budget, "measure", die)
    again = taxonet.train(colours, out=out, budget="15m", resume=True)
    assert same_bits(run.bundle, again.bundle)
    assert again.budget["chosen"] == json.loads((out / "run.json").read_text())["budget"]["chosen"]


def test_a_run_without_a_budget_gets_none_later(colours, tmp_path):
    shutil.copytree(taxonet.train(colours, out=tmp_path / "one", epochs=1, **SMALL).run, tmp_path / "run")
    with pytest.raises(UsageError, match="has no budget, not 10m"):
        taxonet.train(colours, out=tmp_path / "run", budget="10m", resume=True)


def slow_clock(monkeypatch):
    """A clock that only steps move: each takes 10 seconds where 1 was planned."""
    clock, real = Clock(), Deadline.saw_step

    def saw_step(self, took):
        clock.now += 10.0
        real(self, 10.0)

    def deadline(self, began):
        return Deadline(self.seconds, clock.now, 1.0, between=1.0, finish=5.0, clock=clock)

    monkeypatch.setattr(Deadline, "saw_step", saw_step)
    monkeypatch.setattr(Budget, "deadline", deadline)


def test_a_late_run_is_shortened_says_so_and_goes_on_to_the_same_bits(colours, tmp_path, monkeypatch):
    slow_clock(monkeypatch)
    wishes = {"budget": "2m", "epochs": 8, "recipe": "scratch", **SMALL}
    first = taxonet.train(colours, out=tmp_path / "first", **wishes)
    log = log_of(first.run)
    assert len(log) < 8
    assert log[-1]["cuts"]
    assert sum(line.get("steps", 3) for line in log) == log[-1]["cuts"][-1][1]
    assert log[-1]["lr"] < log[0]["lr"]
    assert first.budget["shortened_to_epochs"] == pytest.approx(log[-1]["cuts"][-1][1] / 3)
    assert "shortened to" in first.report.read_text()

    class Stop(Exception):  # noqa: N818
        pass

    real, out = loop._keep_the_deadline, tmp_path / "second"

    def until_cut(training, deadline, took):
        real(training, deadline, took)
        if len(training.position.cuts) == len(log[-1]["cuts"]):
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_keep_the_deadline", until_cut)
        with pytest.raises(Stop):
            taxonet.train(colours, out=out, **wishes)
    second = taxonet.train(colours, out=out, resume=True)
    assert log_of(out)[-1]["cuts"] == log[-1]["cuts"]
    assert second.validation.metrics.n == first.validation.metrics.n
    assert same_bits(first.bundle, second.bundle)


def test_too_little_time_is_refused_with_the_least_that_would_do(colours, tmp_path, capsys):
    words = ["train", str(colours), "--model", "densenet_bc_22_12", "--epochs", "100000", "--budget", "10s"]
    assert main([*words, "--out", str(tmp_path / "run"), "--no-keep-memory"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        "taxonet: the budget 10s is too little: the quickest way, 100000 epochs of densenet_bc_22_12"
    )
    assert "; --budget " in error
    parse_duration(error.rpartition("--budget ")[2])
    assert not (tmp_path / "run").exists()


def test_the_command_prints_the_table_on_stderr_and_json_on_stdout(colours, tmp_path, capsys):
    words = ["train", str(colours), "--model", "densenet_bc_22_12", "--image-size", "16", "--epochs", "1"]
    assert main([*words, "--budget", "5m", "--out", str(tmp_path / "run"), "--json", "--no-keep-memory"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["budget"]["chosen"]["network"] == "densenet_bc_22_12"
    for part in ("measured: densenet_bc_22_12 at 16 pixels", "images/s", "chosen: ", "budget: ", "used of 5m"):
        assert part in printed.err
    assert "chosen for the budget of 5m" in printed.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--budget", "600"], "budget is '600', it must be a time with its unit"),
        (["--budget", "10m", "--epoch", "3"], "train has no option '--epoch'"),
        (["--budget", "10m", "--model", "densnet121"], "did you mean 'densenet121'"),
        (["--budget", "10m", "--weights", "nowhere.pth"], "are those of one network, add --model NAME"),
        (["--budget", "10m", "--recipe", "finetun"], "there is no recipe 'finetun'"),
    ],
)
def test_mistakes_show_before_anything_is_measured(colours, tmp_path, capsys, words, sentence):
    assert main(["train", str(colours), *words, "--out", str(tmp_path / "run"), "--no-keep-memory"]) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert "measured" not in printed.err
    assert not (tmp_path / "run").exists()


def test_several_processes_have_no_budget(colours, tmp_path, monkeypatch):
    from taxonet.processes import World

    @contextmanager
    def two(device):
        yield World(0, 2)

    monkeypatch.setattr(sys.modules["taxonet.training.train"], "join", two)
    monkeypatch.setattr(World, "from_first", lambda self, work: work())
    with pytest.raises(UsageError, match="planned for one process, and torchrun has started 2"):
        taxonet.train(colours, out=tmp_path / "run", budget="10m", **SMALL)


def test_a_network_that_memory_does_not_hold_is_no_choice(colours, tmp_path, monkeypatch):
    from taxonet.training import budget

    def full(*arguments):
        raise TrainingError("memory does not hold 2 pictures")

    monkeypatch.setattr(budget, "measure", full)
    with pytest.raises(TrainingError, match="memory does not hold 2 pictures"):
        taxonet.train(colours, out=tmp_path / "run", budget="10m", **SMALL)


def test_compared_networks_have_the_same_time_each(tmp_path):
    data = write_colours(tmp_path / "data", 8)
    models = ["densenet_bc_22_12", "resnet20_cifar"]
    wishes = {"image_size": 16, "epochs": 1, "runs": 0, "budget": "5m"}
    result = train_and_compare(data, models, out=tmp_path / "runs", **wishes)
    assert result.notes[0].endswith("each in 5m on this machine, seed 0")
    for name, folder in result.runs.items():
        kept = json.loads((folder / "run.json").read_text())["budget"]
        assert (kept["asked"], kept["chosen"]["network"]) == ("5m", name)
    assert json.loads((Path(result.out) / "compare.json").read_text())["budget"] == "5m"
    with pytest.raises(UsageError, match="has budget 5m, not 6m"):
        train_and_compare(data, models, out=tmp_path / "runs", resume=True, **{**wishes, "budget": "6m"})
