"""Kill `taxonet predict FOLDER --out FILE --resume` again and again: is a file lost, repeated or changed?

    python benchmarks/predict/resume.py [--data FOLDER] [--model MODEL] [--photos 10000] [--kills 10] [--seed 0]

An uninterrupted job over hard links, 5 % of them broken, then one that is killed (SIGKILL) at random numbers of bytes
and resumed to its end; once over a CSV, and once over JSON lines. Exit status 1 unless both files are equal to the
byte, with one answer a photo, in order.
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

from benchmarks.predict._photos import linked_photos


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", default=["csv", "jsonl"])
    words = parser.parse_args()
    with linked_photos(words.data, words.photos, broken_every=20) as folder, tempfile.TemporaryDirectory() as out:
        return max(trial(words, folder, Path(out), suffix) for suffix in words.formats)


def trial(words: argparse.Namespace, folder: Path, out: Path, suffix: str) -> int:
    whole, killed = out / f"whole.{suffix}", out / f"killed.{suffix}"
    start = time.perf_counter()
    status = command(words, folder, whole).wait()
    seconds = time.perf_counter() - start
    print(
        f"{suffix}: uninterrupted {words.photos:,} photos in {seconds:.0f} s, exit status {status} (1: some are broken)"
    )
    draw = random.Random(words.seed)
    moments = sorted(draw.randrange(whole.stat().st_size) for _ in range(words.kills))
    for moment in moments:
        kill_at(command(words, folder, killed), killed, moment)
        print(f"  killed at {killed.stat().st_size if killed.exists() else 0:,} bytes (asked: {moment:,})", flush=True)
    status = command(words, folder, killed).wait()
    same = whole.read_bytes() == killed.read_bytes()
    paths = answered(killed)
    right = paths == [str(path) for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    print(f"  resumed: exit status {status}; equal to the byte: {same}; one answer a photo, in order: {right}")
    return int(not (same and right))


def command(words: argparse.Namespace, folder: Path, out: Path) -> "subprocess.Popen[bytes]":
    arguments = ["predict", folder, "--out", out, "--resume", "--top", "1", "-m", words.model, "--engine", words.engine]
    return subprocess.Popen([sys.executable, "-m", "taxonet", *map(str, arguments)], stderr=subprocess.DEVNULL)


def kill_at(process: "subprocess.Popen[bytes]", file: Path, size: int) -> None:
    while process.poll() is None and (not file.exists() or file.stat().st_size < size):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def answered(file: Path) -> list[str]:
    if file.suffix == ".jsonl":
        return [json.loads(line)["path"] for line in file.read_text("utf-8").splitlines()]
    with file.open(newline="", encoding="utf-8") as table:
        return [row["path"] for row in csv.DictReader(table)]


if __name__ == "__main__":
    sys.exit(main())
