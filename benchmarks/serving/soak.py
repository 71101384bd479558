"""A server under damaged and whole pictures for a while: requests, statuses, workers lost, and memory as it goes.

    python benchmarks/serving/soak.py [--seconds 120] [--clients 8] [--data PHOTOS] [--json FILE]

Of five requests two are real photos, two damaged pictures and one a damaged body, as in tests/serving/test_fuzz.py.
Memory is the proportional set size of the server and its workers.
"""

import argparse
import asyncio
import io
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from load import Server
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "predict")]

from photos import make_photos  # noqa: E402
from tests.serving.test_fuzz import body_of, mutated  # noqa: E402

PARTS = 6  # readings of memory


def request(address: str, body: bytes, kind: str) -> bytes:
    head = f"POST {address} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\ncontent-type: {kind}\r\n\r\n"
    return head.encode() + body


def made(server: Server, photos: list[bytes], seeds: list[bytes], number: int) -> bytes:
    rng = random.Random(number)
    if number % 5 < 2:
        return request(server.address, photos[number % len(photos)], "image/jpeg")
    if number % 5 < 4:
        return request(server.address, mutated(seeds, rng), "image/jpeg")
    return request(server.address, *body_of(seeds, rng))


async def client(server: Server, ask: Any, numbers: Any, end: float, statuses: Counter[int]) -> None:
    reader = writer = None
    while time.monotonic() < end:
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(ask(next(numbers)))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        await reader.readexactly(int(head.partition("content-length:")[2].partition("\r\n")[0]))
        statuses[int(head.split()[1])] += 1
        if "connection: close" in head:
            writer.close()
            writer = None


def processes(server: Server) -> list[int]:
    pid = server.process.pid
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def memory(server: Server) -> float:
    """MiB."""
    lines = (line for pid in processes(server) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


async def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    photos = [path.read_bytes() for path in make_photos(folder / "photos", "500", 32, options.data)]
    small = io.BytesIO()
    Image.open(io.BytesIO(photos[0])).resize((96, 64)).save(small, "JPEG")
    seeds = [photos[1], small.getvalue(), b"PK\3\4" + bytes(200), b"<html><svg onload=alert(1)>"]
    server, statuses, found = Server("taxonet", options.port, Path(options.model), folder), Counter[int](), []
    try:
        await server.ready(photos[0])
        workers, numbers = processes(server), iter(range(10**9))
        for _ in range(PARTS):
            end = time.monotonic() + options.seconds / PARTS
            ask = lambda number: made(server, photos, seeds, number)  # noqa: E731
            await asyncio.gather(*(client(server, ask, numbers, end, statuses) for _ in range(options.clients)))
            found.append(memory(server))
            print(f"{sum(statuses.values())} requests, {found[-1]:.0f} MiB", file=sys.stderr, flush=True)
        lost = len(set(workers) - set(processes(server)))
    finally:
        server.stop()
    return {"statuses": dict(sorted(statuses.items())), "memory": found, "lost": lost, "seconds": options.seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--port", type=int, default=8390)
    parser.add_argument("--data", type=Path, help="a folder of class folders to make the photos from")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = asyncio.run(soak(options, Path(temporary)))
    total = sum(found["statuses"].values())
    statuses = ", ".join(f"{count} × {status}" for status, count in found["statuses"].items())
    half, end = found["memory"][PARTS // 2 - 1], found["memory"][-1]
    print(f"{total} requests in {found['seconds']:.0f} s: {statuses}; {found['lost']} processes lost")
    print(f"memory {half:.0f} MiB at half time, {end:.0f} MiB at the end ({100 * (end / half - 1):+.1f} %)")
    if options.json:
        options.json.write_text(json.dumps({"command": " ".join(sys.argv), **found}, indent=2))


if __name__ == "__main__":
    main()
