"""What long work says while it goes on: to a person on stderr, or nothing."""

import sys
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

    def start(self, title: str, total: int, in_bytes: bool = False) -> None:
        """Begin a bar."""
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
