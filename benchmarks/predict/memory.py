"""Does memory grow with the number of photos? Peak of `taxonet predict FOLDER --out answers.csv` for 1,000 and 10,000.

    python benchmarks/predict/memory.py [--data FOLDER] [--model MODEL] [--counts 1000 10000] [--json FILE]

The photos are hard links in a temporary folder, from the two of the package unless --data names others. Each count is
a process of its own; the peak is VmHWM of /proc (Linux). Exit status 1 above 1.2 times.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from _photos import linked_photos

LIMIT = 1.2
CHILD = """
import sys, pathlib, taxonet
folder, out, model, engine = sys.argv[1:]
done = taxonet.predict_files(folder, out=out, model=model, engine=engine)
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
print(done.answers, next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--counts", type=int, nargs=2, default=(1000, 10_000))
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    peaks = {count: peak(words, count) for count in words.counts}
    ratio = peaks[words.counts[1]] / peaks[words.counts[0]]
    for count, peak_mib in peaks.items():
        print(f"{count:>7,} photos  {peak_mib:8.1f} MiB")
    print(f"ratio {ratio:.3f}, limit {LIMIT}: {'holds' if ratio <= LIMIT else 'BROKEN'}")
    if words.json:
        words.json.write_text(json.dumps({"peak_mib": peaks, "ratio": ratio}, indent=2) + "\n")
    return int(ratio > LIMIT)


def peak(words: argparse.Namespace, count: int) -> float:
    with linked_photos(words.data, count) as folder, tempfile.TemporaryDirectory() as out:
        child = [sys.executable, "-c", CHILD, folder, f"{out}/answers.csv", words.model, words.engine]
        ran = subprocess.run(child, capture_output=True, text=True, check=True)
    answers, kib = ran.stdout.split()
    assert int(answers) == count
    return int(kib) / 1024


if __name__ == "__main__":
    sys.exit(main())
