"""Contenders side by side: each in a process of its own, in turn, round after round.

Every contender is loaded and warm before anything counts, then tries its settings on a few photos. In each round every
contender answers all photos once, in an order that moves on by one, so that whatever else the machine does hits all
alike. `--under COMMAND` is for machines that are shared by agreement: a command that runs another when the machine is
free, such as `flock FILE`; everything is loaded and timed while it runs, and it gets a new turn every two minutes.
"""

import contextlib
import importlib.metadata
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import get_all_start_methods, get_context, set_start_method
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from peers import CONTENDERS, cores

from networks import Files

TRIAL = 24  # photos on which settings are tried at least; else a quarter of them
WARM_UP = 8  # photos before


@dataclass
class Result:
    """What one contender did."""

    setting: dict[str, Any] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    peak_mb: float = 0.0
    missing: str | None = None  # why there is no measurement

    def rates(self, photos: int) -> list[float]:
        return [photos / seconds for seconds in self.seconds]


class Alone:
    """While something is timed: a command that runs others only when the machine is free has run ours."""

    LONGEST = 115.0  # seconds before others get a turn

    def __init__(self, under: str | None) -> None:
        self.command = [*shlex.split(under or ""), sys.executable, "-c", "print(flush=True); input()"]

    def __enter__(self) -> "Alone":
        self.keeper = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.keeper.stdout is not None
        self.keeper.stdout.readline()
        self.since = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.keeper.communicate(b"\n")

    def between(self) -> None:
        """Between two pieces that are timed: let others have their turn when it is time."""
        if time.monotonic() - self.since > self.LONGEST:
            self.__exit__()
            self.__enter__()


class Runner:
    """A contender in its own process."""

    def __init__(self, name: str, files: Files, photos: list[Path]) -> None:
        context = get_context("spawn")
        self.name, self.result = name, Result()
        self.choices: list[dict[str, Any]] = []  # its settings
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name, files, photos))
        self.process.start()
        theirs.close()

    def ask(self, *request: Any) -> Any:
        """The answer, or None (and the reason in the result) when the process failed."""
        if self.result.missing:
            return None
        try:
            self.pipe.send(request)
            answer = self.pipe.recv()
        except (EOFError, OSError):
            answer = RuntimeError("its process ended")
        if isinstance(answer, Exception):
            self.result.missing = f"{type(answer).__name__}: {answer}".splitlines()[0][:200]
            return None
        return answer

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send(("end",))
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()


def serve(pipe: Connection, name: str, files: Files, photos: list[Path]) -> None:
    """Answer requests until the end: ("open",), ("trial", setting, count), ("run", setting), ("singly", count)."""
    contender: Any = None
    if "fork" in get_all_start_methods():
        set_start_method("fork", force=True)  # workers of a loader start as they do in a plain script
    while (request := received(pipe))[0] != "end":
        try:
            if request[0] == "open":
                contender = CONTENDERS[name](files, photos)
                pipe.send(contender.SETTINGS)
                continue
            if request[0] == "singly":
                pipe.send(singly(contender, photos[: request[1]]))
                continue
            part = photos[: request[2]] if request[0] == "trial" else photos
            start = time.perf_counter()
            labels = contender.run(part, **request[1])
            pipe.send((time.perf_counter() - start, list(labels), peak_mb()))
        except Exception as error:
            pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


def received(pipe: Connection) -> tuple[Any, ...]:
    """The next request; the end too when whoever asks is gone."""
    try:
        return pipe.recv()
    except EOFError:
        return ("end",)


def singly(contender: Any, photos: list[Path]) -> tuple[list[float], list[int]]:
    """Seconds and label of each photo, one after the other."""
    seconds, labels = [], []
    for photo in photos:
        start = time.perf_counter()
        labels.append(contender.one(photo))
        seconds.append(time.perf_counter() - start)
    return seconds, labels


def peak_mb() -> float:
    """Of this process and the largest of its workers, in MB."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024


def race(
    names: Sequence[str], files: Files, photos: list[Path], rounds: int, under: str | None, say: Any
) -> dict[str, Result]:
    """Results by contender; one that cannot take part has the reason."""
    own_threads()
    runners: list[Runner] = []
    try:
        with Alone(under) as turn:
            for name in names:
                say(f"{files.network}: {name} loads")
                runners.append(Runner(name, files, photos))
                runners[-1].choices = runners[-1].ask("open") or []
                turn.between()
            for runner in runners:
                say(f"{files.network}: {runner.name} tries its settings")
                tune(runner, min(max(TRIAL, len(photos) // 4), len(photos)), turn)
            for number in range(rounds):
                say(f"{files.network}: round {number + 1} of {rounds}")
                first = number % len(runners)
                for runner in runners[first:] + runners[:first]:
                    measure(runner)
                turn.between()
    finally:
        for runner in runners:
            runner.close()
    return {runner.name: runner.result for runner in runners}


def own_threads() -> None:
    """Each contender sets its own number of threads."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.pop(variable, None)


def tune(runner: Runner, count: int, turn: Alone) -> None:
    """Try each setting twice, warm, and keep the one that was fastest at its best."""
    if not runner.choices:
        return
    if len(runner.choices) == 1:
        runner.result.setting = runner.choices[0]
        runner.ask("trial", runner.result.setting, WARM_UP)
        return
    rates = [0.0] * len(runner.choices)
    for _ in range(2):
        for place, setting in enumerate(runner.choices):
            if not rates[place]:
                runner.ask("trial", setting, WARM_UP)
            if answer := runner.ask("trial", setting, count):
                rates[place] = max(rates[place], count / answer[0])
            turn.between()
    tried = zip(runner.choices, rates, strict=True)
    runner.result.trials = [{**setting, "rate": rate} for setting, rate in tried]
    runner.result.setting = runner.choices[rates.index(max(rates))]


def measure(runner: Runner) -> None:
    answer = runner.ask("run", runner.result.setting)
    if answer:
        seconds, runner.result.labels, runner.result.peak_mb = answer
        runner.result.seconds.append(seconds)


def ratio(ours: Result, theirs: Result) -> float:
    """How many times as fast as theirs ours is: the median over the rounds."""
    return statistics.median(other / own for own, other in zip(ours.seconds, theirs.seconds, strict=True))


def agreement(ours: Result, theirs: Result) -> float | None:
    """The share of photos with the same label; None for what gives none."""
    if not ours.labels or not theirs.labels:
        return None
    same = [own == other for own, other in zip(ours.labels, theirs.labels, strict=True)]
    return sum(same) / len(same)


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    cpu = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    packages = ("taxonet", "torch", "openvino", "onnxruntime", "timm", "torchvision", "transformers", "pillow")
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": cores(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
