"""Inputs of large jobs: lists, tables, tar shards; in order, with what cannot be used at its place."""

import io
import itertools
import os
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from taxonet.data import Inputs
from taxonet.data.inputs import expand_inputs, read_lines
from taxonet.data.shards import Refused, read_shard
from taxonet.errors import DataError, ImageError, UsageError
from taxonet.images import DEFAULT_LIMITS
from taxonet.images.source import read_file


def shard(path, members, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def names(*paths, lists=()):
    return [str(one) for one in Inputs(paths, lists)]


@pytest.mark.parametrize(
    "content",
    [
        b"b.jpg\n\na b.jpg\nc.jpg",
        b"b.jpg\r\na b.jpg\r\nc.jpg\r\n",
        b"\xef\xbb\xbfb.jpg\na b.jpg\nc.jpg\n",
        b"b.jpg\0a b.jpg\0c.jpg\0",
    ],
)
def test_a_list_has_one_path_a_line_or_separated_by_nul(tmp_path, content):
    (tmp_path / "files.txt").write_bytes(content)
    expected = ["b.jpg", "a b.jpg", "c.jpg"]
    assert names(f"@{tmp_path / 'files.txt'}") == names(lists=[tmp_path / "files.txt"]) == expected
    assert Inputs([f"@{tmp_path / 'files.txt'}"]).count() == 3


def test_a_path_with_a_line_end_survives_nul_and_odd_bytes_survive_both(tmp_path):
    (tmp_path / "files").write_bytes(b"a\nb.jpg\0caf\xe9.jpg\0")
    assert names(lists=[tmp_path / "files"]) == ["a\nb.jpg", "caf\udce9.jpg"]


def test_a_list_is_read_piece_by_piece():
    class Endless(io.RawIOBase):
        read1 = staticmethod(lambda size: b"a.jpg\n" * (size // 6) + b"a.jpg\n"[: size % 6])  # cuts no path in two

    assert len(list(itertools.islice(read_lines(Endless()), 100_000))) == 100_000


def test_a_generator_of_any_number_of_paths_does_not_grow(tmp_path):
    (tmp_path / "1.jpg").touch()  # one name, since pathlib's table of names is not to be measured
    tracemalloc.start()
    inputs = Inputs(f"{tmp_path}/{'1.jpg'}" for _ in range(50_000))
    assert inputs.count() == sum(1 for _ in inputs) == 50_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20  # a list would be five times that


def test_a_generator_gives_what_a_list_gives(tmp_path):
    """Also names that no list of lines could hold, and each time anew, side by side."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.jpg").touch()
    words = ["a\nb.jpg", "caf\udce9.jpg", "\ufeffc.jpg", "n" * 2**17, tmp_path / "photos", str(tmp_path / "*/*.jpg")]
    inputs = Inputs(iter(words), iter([]))
    expected = [*words[:4], *[str(tmp_path / "photos/1.jpg")] * 2]
    assert names(*words) == expected
    assert [[str(one), str(other)] for one, other in zip(inputs, inputs, strict=True)] == [[n, n] for n in expected]
    assert list(Inputs(iter([]))) == []


def test_stdin_is_a_list(tmp_path):
    code = "from taxonet.data import Inputs; i = Inputs(['-']); print(i.count(), [str(p) for p in i])"
    ran = subprocess.run([sys.executable, "-c", code], input=b"x.jpg\ny.jpg\n", capture_output=True, check=True)
    assert ran.stdout == b"None ['x.jpg', 'y.jpg']\n"


def test_tables_give_paths_beside_themselves(tmp_path):
    (tmp_path / "t.csv").write_text("label,path\ncat,a.jpg\ndog,/b.jpg\ncat,\n\ncat,sub/c.jpg\n", "utf-8")
    expected = [str(tmp_path / "a.jpg"), "/b.jpg", f"{tmp_path / 't.csv'}, row 3", str(tmp_path / "sub/c.jpg")]
    assert names(tmp_path / "t.csv") == expected
    rows = ["a.jpg", "/b.jpg", None, "sub/c.jpg"]
    pyarrow.parquet.write_table(pyarrow.table({"path": rows, "other": [1, 2, 3, 4]}), tmp_path / "t.parquet")
    assert names(tmp_path / "t.parquet") == [name.replace(".csv", ".parquet") for name in expected]
    assert Inputs([tmp_path / "t.parquet"]).count() == 4


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("none.csv", r"none.csv has no column 'path'; did you mean 'paths'\?"),
        ("two.csv", "two.csv has 2 columns called 'path'"),
        ("@gone.txt", "the list gone.txt cannot be read: No such file"),
        ("damaged.parquet", "damaged.parquet cannot be read as Parquet"),
        ("hollow", "hollow holds no pictures"),
        ("*.tar", "no file matches"),
    ],
)
def test_what_cannot_be_used_is_refused_before_the_work(tmp_path, monkeypatch, word, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hollow").mkdir()
    (tmp_path / "none.csv").write_text("paths\na.jpg\n")
    (tmp_path / "two.csv").write_text("path,path\na.jpg,b.jpg\n")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1" + b"\0" * 64 + b"PAR1")
    with pytest.raises(DataError, match=sentence):
        Inputs(["a.jpg", word]).count()


@pytest.fixture
def folder_of_nobody(monkeypatch):
    """The current folder, and where the tests are run by root, the rights of nobody."""
    with tempfile.TemporaryDirectory() as folder:  # others may not enter tmp_path
        Path(folder).chmod(0o755)
        monkeypatch.chdir(folder)
        yield Path(folder)
        if os.getuid() == 0:
            os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="rights of folders are POSIX's")
@pytest.mark.parametrize("tail", [".jpg", ".csv", ".tar"])
def test_a_path_that_the_system_refuses_to_look_at_costs_only_itself(folder_of_nobody, tail):
    long, locked = "n" * 300 + tail, f"locked/a{tail}"
    Path("locked").mkdir()
    Path(locked).write_bytes(b"x")
    Path("good.jpg").touch()
    Path("list.txt").write_text(f"{long}\n{locked}\ngood.jpg\n")
    Path("locked").chmod(0o600)
    if os.getuid() == 0:
        os.seteuid(65534)
    expected = [long, locked, "good.jpg"]
    assert names(*expected) == names(lists=["list.txt"]) == expected
    assert [str(path) for path in expand_inputs(expected)] == expected
    reasons = [reason(one) for one in Inputs(expected[:2])]
    assert "File name too long" in reasons[0]
    assert "ermission denied" in reasons[1]


@pytest.mark.skipif(os.name != "posix", reason="rights of folders are POSIX's")
def test_a_folder_below_that_may_not_be_listed_costs_only_itself(folder_of_nobody):
    for name in ("all/a", "all/b", "all/c"):
        Path(name).mkdir(parents=True)
        Path(name, "1.jpg").touch()
    Path("all/b").chmod(0)
    if os.getuid() == 0:
        os.seteuid(65534)
    assert names("all") == ["all/a/1.jpg", "all/b", "all/c/1.jpg"]
    refused = [one for one in Inputs(["all"]) if isinstance(one, Refused)]
    assert [one.reason for one in refused] == ["the folder cannot be listed: Permission denied"]
    with pytest.raises(DataError, match="all/b cannot be listed: Permission denied"):
        names("all/b")


def reason(one):
    with pytest.raises(ImageError) as caught:
        one.read(DEFAULT_LIMITS) if isinstance(one, Refused) else read_file(one, DEFAULT_LIMITS)
    return str(caught.value)


def test_a_path_with_a_null_character_costs_only_itself(tmp_path):
    (tmp_path / "t.csv").write_bytes(b'path\n"a\0b.jpg"\n"a\0b.tar"\n')
    picture, tar = Inputs([tmp_path / "t.csv"])
    assert reason(picture) == "the path is not valid: it holds a null character"
    assert "null" in reason(tar)


def test_shards_by_braces_pattern_and_folder(tmp_path):
    for number in range(3):
        shard(tmp_path / f"s-{number:02d}.tar", {f"{number}.jpg": b"x", f"{number}.cls": b"1"})
    expected = [f"{tmp_path}/s-0{i}.tar/{i}.jpg" for i in range(3)]
    assert names(tmp_path / "s-{00..02}.tar") == names(tmp_path / "s-*.tar") == names(tmp_path) == expected
    assert names(tmp_path / "s-{00,02}.tar") == [expected[0], expected[2]]
    assert Inputs([tmp_path / "s-{00..02}.tar"]).count() is None
    assert names(tmp_path / "s-{02..03}.tar") == [expected[2], f"{tmp_path}/s-03.tar"]  # the last is answered: missing
    (tmp_path / "{a,b}.jpg").touch()
    assert names(tmp_path / "{a,b}.jpg") == [f"{tmp_path}/{{a,b}}.jpg"]  # a file of that name comes first
    with pytest.raises(UsageError, match=r"\{5\.\.2\} must count upwards"):
        names(tmp_path / "s-{5..2}.tar")


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tgz", "w:gz"), ("tar.xz", "w:xz")])
def test_members_are_the_pictures_of_a_shard(tmp_path, suffix, mode):
    members = {"k1.jpg": b"one", "k1.json": b"{}", "./deep/k2.PNG": b"two", "._k1.jpg": b"mac", "k3.webp": b"three"}
    found = list(read_shard(shard(tmp_path / f"s.{suffix}", members, mode)))
    assert [one.name for one in found] == ["k1.jpg", "deep/k2.PNG", "k3.webp"]
    assert [one.read(DEFAULT_LIMITS) for one in reversed(found)] == [b"three", b"two", b"one"]


def test_a_damaged_shard_costs_what_is_lost(tmp_path):
    path = shard(tmp_path / "s.tar", {f"{i}.jpg": bytes([i]) * 3000 for i in range(1, 5)})
    path.write_bytes(path.read_bytes()[: 512 + 3072 + 512 + 1000])
    one, two, end = read_shard(path)
    assert one.read(DEFAULT_LIMITS) == b"\1" * 3000
    with pytest.raises(ImageError, match="the shard ends in the middle of it"):
        two.read(DEFAULT_LIMITS)
    assert isinstance(end, Refused)
    assert end.reason.startswith("the shard is damaged after 2 pictures: ")


HEADERS = [i * (512 + 3072) for i in range(5)]  # of four members, and the mark of the end


@pytest.mark.parametrize(
    ("cut", "readable", "reason"),
    [
        (HEADERS[2], 2, "it is cut off, the mark of its end is missing"),
        (HEADERS[2] + 300, 2, "it is cut off, the mark of its end is missing"),
        (HEADERS[4], 4, "it is cut off, the mark of its end is missing"),
        (HEADERS[4] + 100, 4, "it is cut off, the mark of its end is missing"),
        (HEADERS[4] + 512, 4, None),  # one block of the end's two is enough
    ],
)
def test_a_shard_that_is_cut_between_its_members_says_so(tmp_path, cut, readable, reason):
    path = shard(tmp_path / "s.tar", {f"{i}.jpg": bytes([i]) * 3000 for i in range(1, 5)})
    path.write_bytes(path.read_bytes()[:cut])
    found = list(read_shard(path))
    assert [one.read(DEFAULT_LIMITS)[0] for one in found[:readable]] == list(range(1, readable + 1))
    expected = [f"the shard is damaged after {readable} pictures: {reason}"] if reason else []
    assert [one.reason for one in found[readable:]] == expected


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (HEADERS[2] + 150, HEADERS[2] + 151, f"the header at byte {HEADERS[2]:,} is damaged"),  # a bit of the checksum
        (HEADERS[2], HEADERS[2] + 512, "more follows the mark of its end"),  # a block that was never written
    ],
)
def test_a_damaged_header_ends_a_shard_with_a_reason(tmp_path, start, end, reason):
    path = shard(tmp_path / "s.tar", {f"{i}.jpg": bytes([i]) * 3000 for i in range(1, 5)})
    data = bytearray(path.read_bytes())
    data[start:end] = bytes([data[start] ^ 1]) if end - start == 1 else bytes(end - start)
    path.write_bytes(data)
    *found, last = read_shard(path)
    assert [one.name for one in found] == ["1.jpg", "2.jpg"]
    assert last.reason == f"the shard is damaged after 2 pictures: {reason}"


def test_a_negative_size_does_not_go_round_for_ever(tmp_path):
    path = shard(tmp_path / "s.tar", {f"{i}.jpg": b"x" * 512 for i in range(3)})
    data = bytearray(path.read_bytes())
    header = data[2048:2560]
    header[124:136] = (-2048).to_bytes(12, "big", signed=True)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * ord(" ") + sum(header[156:]))
    data[2048:2560] = header
    path.write_bytes(data)
    *found, last = itertools.islice(read_shard(path), 10)
    assert [one.name for one in found] == ["0.jpg", "1.jpg"]
    assert last.reason.startswith("the shard is damaged after 2 pictures: ")


def test_links_and_other_members_without_content_are_answered(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name, kind in (
            ("0.jpg", tarfile.REGTYPE),
            ("1.jpg", tarfile.LNKTYPE),
            ("2.jpg", tarfile.SYMTYPE),
            ("3.jpg", tarfile.FIFOTYPE),
            ("4.jpg", tarfile.DIRTYPE),  # a folder is no picture, whatever its name
            ("5.cls", tarfile.LNKTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "0.jpg" if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else ""
            archive.addfile(member, io.BytesIO())
    picture, *refused = read_shard(tmp_path / "s.tar")
    assert str(picture) == f"{tmp_path}/s.tar/0.jpg"
    assert {str(one): one.reason for one in refused} == {
        f"{picture.shard.path}/1.jpg": "it is a hard link to 0.jpg, which is not followed: "
        "pack with tar --hard-dereference",
        f"{picture.shard.path}/2.jpg": "it is a symbolic link to 0.jpg, which is not followed: "
        "pack with tar --dereference",
        f"{picture.shard.path}/3.jpg": "it is not a regular file",
    }


@pytest.mark.parametrize(
    ("content", "reason"), [(b"text " * 400, "it is no tar file"), (b"", "no"), (b"\x1f\x8b\x08bad", "damaged")]
)
def test_what_is_no_shard(tmp_path, content, reason):
    (tmp_path / "s.tar").write_bytes(content)
    (found,) = read_shard(tmp_path / "s.tar")
    assert reason in found.reason


def test_a_shard_of_many_members_keeps_no_headers(tmp_path):
    path = shard(tmp_path / "s.tar", {f"{i:06d}.jpg": b"x" for i in range(5000)})
    tracemalloc.start()
    assert sum(1 for _ in read_shard(path)) == 5000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_expand_inputs_takes_a_shard_for_a_file(tmp_path):
    path = shard(tmp_path / "s.tar", {"1.jpg": b"x"})
    assert expand_inputs([path]) == [path]
