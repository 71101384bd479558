import os
import stat
from pathlib import Path

import pytest

from taxonet.errors import DataError, UsageError
from taxonet.files import remove_leftovers, replacing, write_atomically


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_writes_and_replaces_keeping_the_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, b"one")
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
    path.chmod(0o640)
    write_atomically(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(tmp_path) == {"a.txt"}


def test_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"ha")
            raise failure

    with pytest.raises(failure):
        write_half()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"a.txt"}


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_is_a_sentence(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    monkeypatch.setattr(step, full)
    with pytest.raises(DataError, match=r"cannot write '.*a\.txt': No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"a.txt"}


def test_wrong_targets_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"the folder '.*nowhere' does not exist"):
        write_atomically(tmp_path / "nowhere" / "a.txt", b"")
    with pytest.raises(UsageError, match="it is a folder"):
        write_atomically(tmp_path, b"")
    with pytest.raises(UsageError, match="not a regular file"):
        write_atomically(tmp_path / "pipe", b"")
    with pytest.raises(DataError, match="File name too long"):
        write_atomically(tmp_path / ("n" * 250), b"")


def test_a_folder_without_write_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere, so it is only said here
    with pytest.raises(UsageError, match="is not writable"):
        write_atomically(tmp_path / "a.txt", b"")


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.txt.0123456789ab.tmp").write_bytes(b"half")
    others = {".b.txt.0123456789ab.tmp", ".a.txt.c.0123456789ab.tmp", "a.txt"}
    for name in others:
        (tmp_path / name).write_bytes(b"")
    assert remove_leftovers(tmp_path / "a.txt") == 1
    assert names(tmp_path) == others
