"""Kill `taxonet predict FOLDER --out FILE --resume` again and again: is a file lost, repeated or changed?

    python benchmarks/predict/resume.py [--data FOLDER] [--model MODEL] [--photos 10000] [--kills 10] [--seed 0]
        [--formats csv jsonl parquet] [--json FILE]

An uninterrupted job over hard links, 5 % of them broken, then one that is killed (SIGKILL) at random numbers of bytes
and resumed to its end; once for each format. Of Parquet the bytes are those of its journal. Exit status 1 unless the
two files are equal to the byte, with one answer a photo, in order.
"""

import argparse
import csv
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet
from _photos import linked_photos

from taxonet.inference.parquet import from_parquet


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--formats", nargs="+", default=["csv", "jsonl", "parquet"], choices=["csv", "jsonl", "parquet"]
    )
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    document: dict[str, Any] = {"command": " ".join(sys.argv), "photos": words.photos, "results": []}
    with linked_photos(words.data, words.photos, broken_every=20) as folder, tempfile.TemporaryDirectory() as out:
        for suffix in words.formats:
            document["results"].append(trial(words, folder, Path(out), suffix))
            if words.json:
                words.json.write_text(json.dumps(document, indent=2) + "\n")
    return int(not all(row["equal"] and row["in_order"] for row in document["results"]))


def trial(words: argparse.Namespace, folder: Path, out: Path, suffix: str) -> dict[str, Any]:
    whole, killed = out / f"whole.{suffix}", out / f"killed.{suffix}"
    start = time.perf_counter()
    status = command(words, folder, whole).wait()
    seconds = time.perf_counter() - start
    print(
        f"{suffix}: uninterrupted {words.photos:,} photos in {seconds:.0f} s, exit status {status} (1: some are broken)"
    )
    draw = random.Random(words.seed)
    size, growing = bytes_written(whole), journal(killed)
    kills = []
    for moment in sorted(draw.randrange(size) for _ in range(words.kills)):
        kill_at(command(words, folder, killed), growing, moment)
        kills.append({"asked": moment, "bytes": size_of(growing)})
        print(f"  killed at {kills[-1]['bytes']:,} bytes (asked: {moment:,})", flush=True)
    status = command(words, folder, killed).wait()
    same = whole.read_bytes() == killed.read_bytes()
    right = answered(killed) == [str(path) for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    print(f"  resumed: exit status {status}; equal to the byte: {same}; one answer a photo, in order: {right}")
    row = {"format": suffix, "seconds": round(seconds, 1), "bytes": size, "kills": kills}
    return row | {"equal": same, "in_order": right}


def journal(file: Path) -> Path:
    """What grows while the answers come."""
    return file.with_name(f"{file.name}.part.jsonl") if file.suffix == ".parquet" else file


def bytes_written(file: Path) -> int:
    """The size of what grew; of Parquet its journal is gone."""
    if file.suffix != ".parquet":
        return file.stat().st_size
    again = file.with_name("again.jsonl")
    from_parquet(file, again)
    return again.stat().st_size


def size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # not yet there, or no longer
        return 0


def command(words: argparse.Namespace, folder: Path, out: Path) -> "subprocess.Popen[bytes]":
    arguments = ["predict", folder, "--out", out, "--resume", "--top", "1", "-m", words.model, "--engine", words.engine]
    return subprocess.Popen([sys.executable, "-m", "taxonet", *map(str, arguments)], stderr=subprocess.DEVNULL)


def kill_at(process: "subprocess.Popen[bytes]", file: Path, size: int) -> None:
    while process.poll() is None and size_of(file) <= size:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def answered(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        rows = pyarrow.parquet.read_table(file, columns=["path", "rank"]).to_pylist()
        return [row["path"] for row in rows if row["rank"] in (None, 1)]
    if file.suffix == ".jsonl":
        return [json.loads(line)["path"] for line in file.read_text("utf-8").splitlines()]
    with file.open(newline="", encoding="utf-8") as table:
        return [row["path"] for row in csv.DictReader(table)]


if __name__ == "__main__":
    sys.exit(main())
