"""Pictures that the processes of a machine share: the same pixels, opened once, kept once."""

import json
import os

import pytest
from tests.training.conftest import write_colours
from tests.training.forking import Forks

OPEN = """
import hashlib, json, os, sys
from pathlib import Path
import taxonet.training.pictures as pictures
from taxonet.console import Silent
from taxonet.data import read_data
from taxonet.processes import World, join

decoded = []
plain = pictures.Pictures._decode
pictures.Pictures._decode = lambda self, path: (decoded.append(path), plain(self, path))[1]
samples = read_data(os.environ["DATA"]).samples
if os.environ.get("NO_MEMFD"):
    del os.memfd_create
pictures.MEMORY_SHARE = float(os.environ["SHARE"])
pictures._free_memory = lambda: 1_000_000
with join() as world:
    readable, store, findings = pictures.open_once(samples, 10, 3, Silent(), world)
    opened = len(decoded)
    pixels = hashlib.sha256(b"".join(store.open(sample.path).tobytes() for sample in readable)).hexdigest()
    names = [Path(finding.path).name for finding in findings]
    print(json.dumps([len(readable), names, pixels, opened, store.used, len(store._kept), len(decoded)]))
"""


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memory files")
def test_each_picture_is_opened_once_and_kept_once(tmp_path):
    data = write_colours(tmp_path / "data", 7)
    (data / "red" / "003.png").write_bytes(b"no picture")
    (data / "blue" / "006.png").write_bytes(b"")
    forks = Forks()
    try:

        def found(count, name, **environment):
            folder = tmp_path / name
            started = forks.start_together(count, [], folder, FORK_FIRST=OPEN, DATA=str(data), **environment)
            statuses = [process.wait() for process in started]
            assert statuses == [0] * count, (folder / "0.txt").read_text()
            return [json.loads((folder / f"{rank}.out").read_text()) for rank in range(count)]

        (one,) = found(1, "one", SHARE="1.0")
        assert one[:2] == [19, ["006.png", "003.png"]]
        for count in (2, 3):
            many = found(count, f"many{count}", SHARE="1.0")
            assert [answer[:3] for answer in many] == [one[:3]] * count
            assert sum(answer[3] for answer in many) == 21  # opened once
            # One piece of memory with the bytes of all pictures, nothing kept beside it, nothing decoded again.
            assert [answer[4:6] for answer in many] == [[one[4], 0]] * count
            assert [answer[6] for answer in many] == [answer[3] for answer in many]
        small = found(2, "small", SHARE="0.01")  # room for a few: the others are decoded at each use
        assert [answer[:3] for answer in small] == [one[:3]] * 2
        assert 0 < small[0][4] <= 10_000
        assert small[0][6] > small[0][3]
        without = found(2, "without", SHARE="1.0", NO_MEMFD="1")  # not on Linux
        assert [answer[:3] for answer in without] == [one[:3]] * 2
    finally:
        forks.close()
