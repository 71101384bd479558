"""kill -9 at 20 random moments: every run that goes on ends in the bits of the run that was never killed."""

import os
from collections import Counter

import pytest
from benchmarks.training.kills import END, START, STEP, WRITE, kill_and_go_on, moments, sooner, steps_of
from tests.training.conftest import write_colours
from tests.training.forking import Forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
KILLS = 20

TRIES = 12  # of one moment, each sooner than the last


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    data = write_colours(tmp_path / "data", 16)
    words = f"train {data} --model densenet_bc_22_12 --image-size 16 --batch-size 8 --epochs 3 --lr 0.1".split()
    words += ["--dropout", "0.1", "--ema-decay", "0.9", "--optimizer", "adamw"]
    forks = Forks()
    try:
        whole = tmp_path / "whole"
        assert forks.start([*words, "--out", whole], tmp_path / "whole.txt").wait() == 0
        assert steps_of(whole) == 15
        kills = []
        for moment in moments(KILLS, 1, (0.0, 0.2)):
            for _ in range(TRIES):
                kill = kill_and_go_on(moment, words, whole, tmp_path / "run", forks.start)
                if kill is not None:
                    kills.append(kill)
                    break
                moment = sooner(moment)  # noqa: PLW2901 - the run was faster
    finally:
        forks.close()
    assert [kill.differences for kill in kills] == [()] * KILLS, kills
    kinds = Counter(kill.moment.kind for kill in kills)
    assert min(kinds[kind] for kind in (STEP, WRITE, START, END)) >= 1
    assert sum(kill.half_written for kill in kills) >= 1
    middle = [kill for kill in kills if kill.steps >= 0 and kill.steps % 5]
    assert middle
    assert all("after" in kill.went_on for kill in middle)
