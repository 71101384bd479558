"""Files of answers: CSV and JSON lines, written answer by answer, and read back after any end of the writer.

An answer is handed to the system with one write, so a killed process leaves a file that is whole but for its last
answer. The disk is waited for (fsync) every two seconds and at the end: a power cut costs what came in between, and
whatever it leaves of that is cut off when the file is taken up again.
"""

import csv
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from taxonet.errors import DataError, UsageError
from taxonet.inference.classifier import Prediction

COLUMNS = ("path", "rank", "label", "index", "probability", "error", "abstained")
SYNC_SECONDS = 2.0


@dataclass(frozen=True)
class Done:
    """An answer found in a file: whose it is, whether it is an error, and where it ends."""

    name: str
    broken: bool
    end: int


def as_text(name: str) -> str:
    """A path with what is no text escaped."""
    return name.encode(errors="backslashreplace").decode()


class Format(Protocol):
    """How answers are written and found again."""

    header: bytes

    def encode(self, answer: Prediction) -> bytes:
        """The bytes of one answer, its line ends included."""

    def spelling(self, name: str) -> str:
        """A path as it is found in the file."""

    def read(self, file: BinaryIO) -> Iterator[Done]:
        """The whole answers after the header, up to the first that is torn."""


class CsvFormat:
    """One line a class of an answer, as many as `ranks`, or one line with the error."""

    header = (",".join(COLUMNS) + "\r\n").encode()

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks

    def encode(self, answer: Prediction) -> bytes:
        """Lines of path, rank, label, index, probability to six places, error, abstained."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        abstained = "yes" if answer.abstained else "no"
        for rank, p in enumerate(answer.predictions, start=1):
            writer.writerow([answer.path, rank, p.label, p.index, f"{p.probability:.6f}", "", abstained])
        if answer.error:
            writer.writerow([answer.path, "", "", "", "", answer.error, ""])
        return text.getvalue().encode(errors="backslashreplace")

    def spelling(self, name: str) -> str:
        """What is no text is escaped."""
        return as_text(name)

    def read(self, file: BinaryIO) -> Iterator[Done]:
        """The answers whose lines are all there."""
        expected, end = 1, file.tell()
        for line in _csv_lines(file):
            end += len(line)
            row = _row(line)
            if row is None or row[1] not in ("", str(expected)):
                return
            if not row[1] or expected == self.ranks:
                yield Done(row[0], not row[1], end)
            expected = expected + 1 if row[1] and expected < self.ranks else 1


def _csv_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines of a table, whole ones only; a quoted path may hold line ends."""
    record = b""
    for line in file:
        record += line
        if record.count(b'"') % 2 == 0 and record.endswith(b"\r\n"):
            yield record
            record = b""


def _row(line: bytes) -> list[str] | None:
    with suppress(UnicodeDecodeError, csv.Error, StopIteration):
        row = next(csv.reader([line.decode()], strict=True))
        return row if len(row) == len(COLUMNS) and b"\0" not in line else None
    return None


class JsonLines:
    """One JSON object a line: `{"path", "predictions": [{"label", "index", "probability"}], "error", "abstained"}`."""

    header = b""

    def __init__(self, only_text: bool = False) -> None:
        """With `only_text` a path that is no text is escaped, as a table must have it; JSON gives it back as it was."""
        self.only_text = only_text

    def encode(self, answer: Prediction) -> bytes:
        """The answer's line."""
        fields = answer.as_dict() | {"path": self.spelling(answer.path or "")}
        try:
            return (json.dumps(fields, ensure_ascii=False) + "\n").encode()
        except UnicodeEncodeError:
            return (json.dumps(fields) + "\n").encode()

    def spelling(self, name: str) -> str:
        """The path, escaped where only text will do."""
        return as_text(name) if self.only_text else name

    def read(self, file: BinaryIO) -> Iterator[Done]:
        """The answers of whole lines."""
        end = file.tell()
        for line in file:
            end += len(line)
            try:
                answer = json.loads(line)
                done = Done(answer["path"], answer["error"] is not None, end)
            except (ValueError, KeyError, TypeError):
                return
            if not line.endswith(b"\n"):
                return
            yield done


class AnswerFile:
    """A file of answers that grows: taken up where its last whole answer ends, locked against another writer."""

    def __init__(self, path: Path, layout: Format, begin: Callable[[bool], None] = lambda empty: None) -> None:
        """Open or make `path`.

        `begin` is called once the file is locked and before it is read, with whether it is empty; it may refuse the
        file, or put another one in its place.

        Raises UsageError when it belongs to another writer or is not a file of answers.
        """
        self.path, self.layout = path, layout
        self.done = self.broken = 0
        self._synced = time.monotonic()
        self._file = self._taken()
        try:
            self._begin(begin)
            self._repair()
        except BaseException:
            self._file.close()
            raise

    def _begin(self, begin: Callable[[bool], None]) -> None:
        empty = not os.fstat(self._file.fileno()).st_size
        try:
            begin(empty)
        except BaseException:
            if empty:
                with suppress(OSError):
                    self.path.unlink()
            raise
        before, self._file = self._file, self._taken_anew()  # the old one stays locked until the new one is
        if before is not self._file:
            before.close()

    def _taken_anew(self) -> io.FileIO:
        same = os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        return self._file if same else self._taken()

    def _taken(self) -> io.FileIO:
        """The file that has the path, locked."""
        while True:
            with self._writing():
                # unbuffered: what is written is the system's, whatever becomes of this process
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
                file = io.FileIO(handle, "r+")
            try:
                _lock(handle, self.path)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(handle), self.path.stat()):
                        return file
            except BaseException:
                file.close()
                raise
            file.close()  # another writer has put another file there, or taken it away

    def __enter__(self) -> "AnswerFile":
        return self

    def __exit__(self, *_: object) -> None:
        with self._file, self._writing():
            os.fsync(self._file.fileno())

    def names(self) -> Iterator[str]:
        """The names that the file had answered when it was opened, in its order."""
        with self.path.open("rb") as file:
            file.seek(len(self.layout.header))
            for _, answer in zip(range(self.done), self.layout.read(file), strict=False):
                yield answer.name

    def append(self, answer: Prediction) -> None:
        """Write one answer."""
        with self._writing():
            _write(self._file, self.layout.encode(answer))
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()

    def _repair(self) -> None:
        """Count the whole answers and cut off what follows them."""
        header, end = self.layout.header, 0
        with self.path.open("rb") as file:
            start = file.read(len(header))
            if not header.startswith(start):
                raise UsageError(f"{self.path} is not a file of answers of this form: it has another first line")
            if start == header:
                end = len(header)
                for answer in self.layout.read(file):
                    self.done, self.broken, end = self.done + 1, self.broken + answer.broken, answer.end
        with self._writing():
            self._file.truncate(end)
            self._file.seek(end)
            if end < len(header):
                self._file.truncate(0)
                self._file.seek(0)
                _write(self._file, header)

    def _writing(self) -> "_Writing":
        return _Writing(self.path)


class _Writing:
    """What the system refuses while a file is written becomes one sentence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise DataError(f"cannot write '{self.path}': {error.strerror or error}") from error


def _write(file: io.RawIOBase | BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]


def _lock(handle: int, path: Path) -> None:
    """Refuse a file that another process writes now; the lock goes with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"{path} is being written by another process") from None
    except OSError:  # a file system without locks
        return
