"""What long work says while it goes on: to a person on stderr, or nothing."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_SECONDS = 30.0  # between the lines of a log file


class Listener(Protocol):
    """Who follows the work."""

    def say(self, text: str) -> None:
        """A line of text."""

    def start(self, title: str, total: int, in_bytes: bool = False) -> None:
        """A piece of work with a known number of parts, or of bytes, begins."""

    def advance(self, done: int, note: str = "") -> None:
        """So many parts of it are done."""

    def finish(self) -> None:
        """It is over."""


class Silent:
    """Nobody listens."""

    def say(self, text: str) -> None:
        """Ignore the line."""

    def start(self, title: str, total: int, in_bytes: bool = False) -> None:
        """Ignore the start."""

    def advance(self, done: int, note: str = "") -> None:
        """Ignore the progress."""

    def finish(self) -> None:
        """Ignore the end."""


class Terminal:
    """A person at a terminal, or a log file: the bar shows only where it can move."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr, soft_wrap=True, highlight=False)
        self._progress: Progress | None = None
        self._task: TaskID = TaskID(0)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, markup=False)

    def start(self, title: str, total: int | None, in_bytes: bool = False) -> None:
        """Begin a bar; without a total it only counts."""
        self.finish()
        if not self.console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn() if in_bytes else MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._task = self._progress.add_task(title, total=total, note="")
        self._progress.start()

    def follow(self, title: str) -> Callable[[int, int], None]:
        """A callback for (done, total) that shows a bar."""

        def progress(done: int, total: int) -> None:
            if done <= 1:
                self.start(title, total)
            self.advance(done)

        return progress

    def pace(self, title: str) -> Callable[[int, int, int | None], None]:
        """A callback for (done, broken, total or None) that shows rate, remaining time and what is broken.

        Where no bar can move, a line says it every half minute.
        """
        begun, before, last = time.monotonic(), -1, time.monotonic()

        def progress(done: int, broken: int, total: int | None) -> None:
            nonlocal begun, before, last
            now = time.monotonic()
            if before < 0:
                self.start(title, total)
                begun, before, last = now, done - 1, now
            if now - last < (0.1 if self._progress else LINE_SECONDS) and done != total:
                return
            last, rate = now, (done - before) / max(now - begun, 1e-3)
            note = f"{rate:,.0f}/s" + (f", {broken:,} broken" if broken else "")
            self.advance(done, note)
            if not self._progress and now - begun >= LINE_SECONDS:
                left = f" of {total:,}, {(total - done) / rate:,.0f} s left" if total else ""
                self.say(f"{title}: {done:,}{left}, {note}")

        return progress

    def advance(self, done: int, note: str = "") -> None:
        """Move the bar."""
        if self._progress:
            self._progress.update(self._task, completed=done, note=note)

    def finish(self) -> None:
        """Take the bar away."""
        if self._progress:
            self._progress.stop()
            self._progress = None


def follow_parts(listener: Listener) -> Callable[[str, int, int], None]:
    """A callback for (title, done, total): each title gets a bar of its own."""

    def progress(title: str, done: int, total: int) -> None:
        if done <= 1:
            listener.start(title, total)
        listener.advance(done)

    return progress
