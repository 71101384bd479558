"""A file over http: whole and with the right hash, or not there; what has arrived is not asked for again."""

import hashlib
import os
import subprocess
import sys
import threading

import pytest
from tests.weights.server import Served

from taxonet.console import Silent
from taxonet.errors import DownloadError, UsageError
from taxonet.weights.download import download, mirrored

URL = "https://example.org/models/net-0123.pth"
PATH = "/mirror/example.org/models/net-0123.pth"
DATA = bytes(range(256)) * 1000
HASH = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "net-0123.pth"


@pytest.fixture
def served(server):
    server.files[PATH] = Served(DATA)
    return server.files[PATH]


def get(target, sha256=HASH):
    download(URL, target, sha256, Silent())


def left(target):
    return {path.name for path in target.parent.iterdir()} - {f"{target.name}.lock"}


@pytest.mark.parametrize("digits", [8, 64])
def test_a_file_arrives_once(server, served, target, digits):
    get(target, HASH[:digits])
    get(target, HASH[:digits])
    assert target.read_bytes() == DATA
    assert left(target) == {target.name}
    assert server.asked == [("GET", PATH, None)]


def test_a_broken_transfer_goes_on_where_it_broke_off(server, served, target):
    served.dies_after = [100_000, 50_000]
    with pytest.raises(DownloadError, match=r"broke off after 100,000 of 256,000 bytes; the same command goes on"):
        get(target)
    with pytest.raises(DownloadError, match="broke off after 150,000 of 256,000 bytes"):
        get(target)
    assert left(target) == {f"{target.name}.part"}
    get(target)
    assert target.read_bytes() == DATA
    assert [wanted for _, _, wanted in server.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert left(target) == {target.name}


def test_a_server_without_ranges_sends_everything_again(served, target):
    served.dies_after, served.ranges = [100_000], False
    with pytest.raises(DownloadError, match="broke off"):
        get(target)
    get(target)
    assert target.read_bytes() == DATA


def test_a_whole_part_only_needs_its_name(server, served, target):
    target.parent.mkdir()
    target.with_name(f"{target.name}.part").write_bytes(DATA)
    get(target)
    assert target.read_bytes() == DATA
    assert server.asked == [("GET", PATH, f"bytes={len(DATA)}-")]


def test_a_part_of_another_file_is_found_out_and_the_next_try_begins_anew(served, target):
    target.parent.mkdir()
    target.with_name(f"{target.name}.part").write_bytes(b"x" * 1000)
    with pytest.raises(DownloadError, match="SHA-256"):
        get(target)
    assert left(target) == set()
    get(target)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("data", [DATA[:-1], DATA[:-1] + b"x", b""], ids=["truncated", "other", "empty"])
def test_another_file_is_refused_with_both_hashes_and_leaves_nothing(server, target, data):
    server.files[PATH] = Served(data)
    with pytest.raises(DownloadError) as caught:
        get(target)
    assert HASH in str(caught.value)
    assert hashlib.sha256(data).hexdigest() in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left(target) == set()


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(404, r"no such file \(404\)"), (401, "wants a login"), (403, "refuses it"), (503, "error 503, try again later")],
)
def test_what_a_server_refuses(server, target, status, sentence):
    server.files[PATH] = Served(status=status)
    with pytest.raises(DownloadError, match=sentence):
        get(target)
    assert left(target) == set()


def test_a_server_that_is_not_there(target, monkeypatch):
    monkeypatch.setenv("TAXONET_MIRROR", "http://127.0.0.1:1")
    with pytest.raises(DownloadError, match=r"^cannot reach 127\.0\.0\.1:1 \(.*refused.*TAXONET_MIRROR"):
        get(target)


def test_the_mirror(monkeypatch):
    monkeypatch.setenv("TAXONET_MIRROR", "https://mirror.example/files/")
    assert mirrored(URL) == "https://mirror.example/files/example.org/models/net-0123.pth"
    monkeypatch.setenv("TAXONET_MIRROR", "file:///etc")
    with pytest.raises(UsageError, match="must begin with http"):
        mirrored(URL)
    monkeypatch.setenv("TAXONET_MIRROR", "")
    assert mirrored(URL) == URL


CHILD = """
import sys
from pathlib import Path
from taxonet.console import Terminal
from taxonet.weights.download import download
download(sys.argv[1], Path(sys.argv[2]), sys.argv[3], Terminal())
"""


def test_two_processes_share_one_transfer(server, served, target):
    served.waits_for = threading.Event()
    words = [sys.executable, "-c", CHILD, URL, str(target), HASH]
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) for _ in range(2)]
    lines = []
    readers = [threading.Thread(target=lambda p=p: lines.append(p.stderr.readline())) for p in both]
    for reader in readers:
        reader.start()
    while not lines:  # the one that waits says so; the other says nothing before the body comes
        for reader in readers:
            reader.join(0.01)
    served.waits_for.set()
    assert [process.wait(30) for process in both] == [0, 0]
    for reader, process in zip(readers, both, strict=True):
        reader.join()
        process.stderr.close()
    assert "another process works on net-0123.pth" in "".join(lines)
    assert target.read_bytes() == DATA
    assert len(server.bodies()) == 1
