"""Claim: a run that is killed at any instant goes on and ends in the same bundle, bit for bit.

    python benchmarks/training/kills.py --data PHOTOS --kills 20 -- --epochs 2 --image-size 96

One run is left alone. Then run after run of the same command is killed (SIGKILL) at a moment drawn from a seed, and
`--resume` ends it. Compared are the bundle's tensors, all of its metadata but the time of writing, the log's figures,
the recipe and the tables of the split. `--processes 2` does the same under torchrun, and kills one of the two.
What stands after `--` goes to `taxonet train`. Fix the threads: OMP_NUM_THREADS=2.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

POLL = 0.0002  # seconds between looks: a checkpoint takes longer to write, and the run needs the core
STEP, WRITE, START, END = "in a step", "while a checkpoint is written", "while the run starts", "while the run ends"


@dataclass(frozen=True)
class Moment:
    """When to kill: the kind, the step (a share of the run's) after which it counts, and a random while more."""

    kind: str
    share: float
    polls: int
    checkpoint_seconds: float


@dataclass(frozen=True)
class Kill:
    """What a kill met, and how the run ended that went on from it."""

    moment: Moment
    steps: int  # of the newest checkpoint that was there
    half_written: int  # checkpoints that the kill left unfinished
    went_on: str
    differences: tuple[str, ...]


def moments(count: int, seed: int, seconds: Sequence[float]) -> list[Moment]:
    """Moments spread over the run and its phases, the same for a seed."""
    dice = random.Random(seed)
    fixed = [START, END, WRITE, STEP]
    kinds = [*fixed, *(dice.choice([STEP, STEP, WRITE, WRITE, END]) for _ in range(count - len(fixed)))][:count]
    return [Moment(kind, dice.uniform(0, 0.95), dice.randrange(300), dice.choice(seconds)) for kind in kinds]


def sooner(moment: Moment) -> Moment:
    """A moment for a run that was over before it: half as late, with a checkpoint after each step."""
    return replace(moment, share=moment.share / 2, polls=moment.polls // 2, checkpoint_seconds=0.0)


def steps_of(run: Path) -> int:
    """Steps of the newest finished checkpoint, −1 without one."""
    names = (entry.name for entry in _entries(run / "last"))
    return max((int(name[11:19]) for name in names if name.startswith("checkpoint-")), default=-1)


def half_written(run: Path) -> int:
    return sum(entry.name.startswith(".checkpoint-") for entry in _entries(run / "last"))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def has_come(moment: Moment, run: Path, steps: int) -> bool:
    if moment.kind == START:
        return (run / "run.json").exists()
    if moment.kind == END:
        return steps_of(run) >= steps
    if steps_of(run) < moment.share * steps:
        return False
    return half_written(run) > 0 if moment.kind == WRITE else True


Start = Callable[[list[str], Path], Any]  # arguments of taxonet, a file for stderr → a process: poll, kill, wait


def kill_at(moment: Moment, run: Path, steps: int, process: Any, victim: Callable[[], int | None]) -> bool:
    """Watch the run's folder and kill at the moment; False if the process was faster."""
    left = 0 if moment.kind == WRITE else moment.polls
    come = False
    while process.poll() is None:
        come = come or has_come(moment, run, steps)
        if come and (left := left - 1) < 0:
            pid = victim()
            if pid is None:
                return False
            os.kill(pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(POLL)
    return False


def differences(first: Path, second: Path) -> tuple[str, ...]:
    """What two runs differ in that must be the same bits."""
    import torch

    from taxonet.weights.bundle import read_info, read_tensors

    found = []
    one, other = read_tensors(first / "model.safetensors"), read_tensors(second / "model.safetensors")
    if one.keys() != other.keys() or not all(torch.equal(one[key], other[key]) for key in one):
        found.append("tensors")
    facts = [vars(read_info(run / "model.safetensors")) | {"created": ""} for run in (first, second)]
    if facts[0] != facts[1]:
        found.append("metadata")
    if _figures(first) != _figures(second):
        found.append("log")
    for name in ("recipe.toml", "train.csv", "val.csv"):
        if (first / name).read_bytes() != (second / name).read_bytes():
            found.append(name)
    return tuple(found)


def _figures(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


def kill_and_go_on(
    moment: Moment, words: list[str], whole: Path, run: Path, start: Start, **options: Any
) -> Kill | None:
    """Kill one run at a moment, go on to its end, and compare; None if it had ended before the moment came."""
    shutil.rmtree(run, ignore_errors=True)
    said = run.with_suffix(".txt")
    seconds = ["--checkpoint-seconds", str(moment.checkpoint_seconds)]
    process = start([*words, "--out", str(run), *seconds], said)
    victim = options.get("victim", lambda process: process.pid)
    if not kill_at(moment, run, steps_of(whole), process, lambda: victim(process)):
        if process.wait() != 0:
            return Kill(moment, steps_of(run), half_written(run), said.read_text(), ("it failed by itself",))
        return None
    steps, unfinished = steps_of(run), half_written(run)
    go_on = ["--resume"] if (run / "recipe.toml").exists() else []
    status = start([*words, "--out", str(run), *go_on], said).wait()
    text = said.read_text()
    if status != 0:
        return Kill(moment, steps, unfinished, text.strip().splitlines()[-1], ("it did not end",))
    lines = [line for line in text.splitlines() if line.startswith(("going on", "no checkpoint yet", str(run)))]
    return Kill(moment, steps, unfinished, lines[0] if lines else "begun again", differences(whole, run))


def _subprocess(processes: int) -> Start:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]

    def start(words: list[str], said: Path) -> subprocess.Popen[bytes]:
        with said.open("w") as file:
            command = [sys.executable, *(launcher if processes > 1 else []), "-m", "taxonet", *words]
            return subprocess.Popen(command, stderr=file)

    return start


def _worker(process: subprocess.Popen[bytes]) -> int | None:
    """A random process that the launcher has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(random.choice(children)) if children else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--checkpoint-seconds", type=float, nargs="+", default=[0.0, 3.0], help="drawn for each kill")
    parser.add_argument("train", nargs="*", help="options of taxonet train")
    options = parser.parse_args()
    words = ["train", options.data, *options.train]
    start = _subprocess(options.processes)
    victim = {"victim": _worker} if options.processes > 1 else {}
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        if start([*words, "--out", str(whole)], Path(folder) / "whole.txt").wait() != 0:
            sys.exit((Path(folder) / "whole.txt").read_text())
        print(f"{steps_of(whole)} steps; {os.environ.get('OMP_NUM_THREADS', 'the default number of')} threads")
        print(f"{'kill':>4}  {'moment':<30}  {'checkpoint':>10}  {'half written':>12}  the bundle            went on")
        same = done = 0
        for number, moment in enumerate(moments(options.kills, options.seed, options.checkpoint_seconds), start=1):
            kill = kill_and_go_on(moment, words, whole, Path(folder) / "run", start, **victim)
            if kill is None:  # the run was faster: again, sooner
                moment = sooner(moment)  # noqa: PLW2901
                kill = kill_and_go_on(moment, words, whole, Path(folder) / "run", start, **victim)
            if kill is None:
                print(f"{number:>4}  {moment.kind:<30}  the run was faster")
                continue
            done, same = done + 1, same + (not kill.differences)
            at = f"step {kill.steps}" if kill.steps >= 0 else "none"
            verdict = "differs: " + ", ".join(kill.differences) if kill.differences else "the same bits"
            print(f"{number:>4}  {moment.kind:<30}  {at:>10}  {kill.half_written:>12}  {verdict:<20}  {kill.went_on}")
        print(f"{same} of {done} killed runs ended in the same bits")
    sys.exit(same != done)


if __name__ == "__main__":
    main()
