"""A writer is killed at random instants; the bundle is the old one or the new one every time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from taxonet.files import remove_leftovers

ROUNDS = 30

# Importing torch is slow and must not be what is killed: one process imports it and forks a writer per round.
WRITER = """
import os, random, signal, sys, time
import torch
from taxonet.weights.bundle import BundleInfo, read_info, read_tensors, save_bundle

path, rounds = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dice = random.Random(7)

def save(number):
    info = BundleInfo("net", ("a", "b"), "rgb", metrics={"n": number}, created="2026-01-01T00:00:00Z")
    save_bundle(path, info, {"w": torch.full((300, 1000), float(number)), "b": torch.full((3,), number)})

save(0)
last = 0
for _ in range(rounds):
    child = os.fork()
    if child == 0:
        while True:
            last += 1
            save(last)
    time.sleep(dice.uniform(0.005, 0.08))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    number = read_info(path).metrics["n"]
    assert number >= last
    last = number
    assert all((tensor == number).all() for tensor in read_tensors(path).values())
print(last)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_kill_while_saving(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    command = [sys.executable, "-c", WRITER, str(path), str(ROUNDS)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > ROUNDS  # saves did go through between the kills
    killed_in_the_middle = len(list(tmp_path.iterdir())) - 1
    assert remove_leftovers(path) == killed_in_the_middle > 0
    assert list(tmp_path.iterdir()) == [path]
