"""A server under load: Taxonet against LitServe, a FastAPI handler with eager torch, and FastAPI with ONNX Runtime.

    pip install --no-deps --target PEERS litserve pyzmq
    PYTHONPATH=PEERS python benchmarks/serving/load.py [--network mobilenet_v2] [--photos 12mp] [--json FILE]

Every server runs the same network in float32 on the same machine and takes one JPEG a request in a multipart form, as a
client library sends it. Clients are connections of a second process, each of which sends its next
request when it has its answer; levels and servers take turns, round after round, and medians over the rounds count.
`peers.py` says what each server does. What `Classifier.predict_each` answers on the same bytes without any server is
measured in the same rounds: the difference is what serving costs.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "predict"))

from photos import KINDS, make_photos
from race import machine

HERE = Path(__file__).resolve().parent
SERVERS = ("taxonet", "litserve onnx", "litserve torch", "fastapi torch", "fastapi onnx")
LEVELS = (1, 8, 32, 128)
START = 120  # seconds that a server has to start
LINE = "{:<16} {:>8} {:>12} {:>10} {:>10} {:>9}"


class Server:
    """One server in processes of its own; answers at `port`."""

    def __init__(self, name: str, port: int, bundle: Path, onnx: Path) -> None:
        self.name, self.port = name, port
        if name == "taxonet":
            command = [sys.executable, "-m", "taxonet", "serve", f"model={bundle}", "--port", str(port)]
            self.address, self.field = "/v1/models/model/predict?top=1", "files"
        else:
            command = [sys.executable, str(HERE / "peers.py"), name, str(port), str(bundle), str(onnx)]
            self.address, self.field = "/predict", "request" if "litserve" in name else "file"
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the server
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, start_new_session=True)

    async def ready(self, photo: bytes) -> None:
        """Wait for the first right answer."""
        end = time.monotonic() + START
        while time.monotonic() < end:
            try:
                if (await burst(self, [photo], 1, 0.1))["answers"]:
                    return
            except (OSError, asyncio.IncompleteReadError):
                pass
            if self.process.poll() is not None:
                break
            await asyncio.sleep(0.5)
        self.log.seek(0)
        raise SystemExit(f"{self.name} did not start: {self.log.read()[-2000:].decode()}")

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, 15)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, 9)


def request_of(server: Server, photo: bytes) -> bytes:
    boundary = "-----taxonet-benchmark"
    head = f'--{boundary}\r\ncontent-disposition: form-data; name="{server.field}"; filename="a.jpg"\r\n'
    body = f"{head}content-type: image/jpeg\r\n\r\n".encode() + photo + f"\r\n--{boundary}--\r\n".encode()
    first = f"POST {server.address} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n"
    return f"{first}content-type: multipart/form-data; boundary={boundary}\r\n\r\n".encode() + body


async def client(server: Server, requests: Sequence[bytes], begin: int, end: float, found: dict[str, Any]) -> None:
    """One connection: a request after the other until the time is over."""
    reader = writer = None
    number = begin
    while time.perf_counter() < end:
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        started = time.perf_counter()
        writer.write(requests[number % len(requests)])
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        took = time.perf_counter() - started
        number += 1
        if " 200 " in head[:20] and b'"error":"' not in body:
            found["answers"] += 1
            found["ms"].append(1000 * took)
        else:
            found["failures"] += 1
        if "connection: close" in head:
            writer.close()
            writer = None
    if writer is not None:
        writer.close()


async def burst(server: Server, photos: Sequence[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """So many clients for so long."""
    requests = [request_of(server, photo) for photo in photos]
    found: dict[str, Any] = {"answers": 0, "failures": 0, "ms": []}
    started = time.perf_counter()
    end = started + seconds
    await asyncio.gather(*(client(server, requests, 7 * i, end, found) for i in range(clients)))
    return found | {"seconds": time.perf_counter() - started}


def direct(bundle: Path, photos: Sequence[bytes], seconds: float) -> str:
    """The program that classifies the same bytes without a server; prints photos a second."""
    return (
        "import itertools, sys, time, taxonet, pathlib\n"
        f"c = taxonet.load({str(bundle)!r})\n"
        "photos = [p.read_bytes() for p in sorted(pathlib.Path(sys.argv[1]).glob('*.jpg'))]\n"
        "list(c.predict_each(photos[:8]))\n"
        f"start, done = time.perf_counter(), 0\n"
        "for _ in c.predict_each(itertools.cycle(photos), top=1):\n"
        "    done += 1\n"
        f"    if time.perf_counter() - start > {seconds}: break\n"
        "print(done / (time.perf_counter() - start))\n"
    )


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    paths = make_photos(folder / f"photos-{options.photos}", options.photos, options.count, options.data)
    photos = [path.read_bytes() for path in paths]
    bundle, onnx = prepared(options.network, folder, paths, options.weights)
    servers = [Server(name, options.port + i, bundle, onnx) for i, name in enumerate(options.only)]
    rows: dict[str, dict[int, list[Any]]] = {name: {level: [] for level in options.levels} for name in options.only}
    alone: list[float] = []
    try:
        for server in servers:
            await server.ready(photos[0])
        for number in range(options.rounds):
            for level in options.levels:
                for server in servers[number % len(servers) :] + servers[: number % len(servers)]:
                    await burst(server, photos, level, 1.0)
                    rows[server.name][level].append(await burst(server, photos, level, options.seconds))
                    print(f"round {number + 1}, {level} clients: {server.name}", file=sys.stderr, flush=True)
            program = [sys.executable, "-c", direct(bundle, photos, options.seconds), str(paths[0].parent)]
            alone.append(float(subprocess.run(program, check=True, capture_output=True, text=True).stdout))
    finally:
        for server in servers:
            server.stop()
    table = {name: {level: summary(bursts) for level, bursts in levels.items()} for name, levels in rows.items()}
    return {
        "network": options.network,
        "photos": KINDS[options.photos].words,
        "direct": statistics.median(alone),
        "servers": table,
        "machine": machine(),
    }


def prepared(network: str, folder: Path, photos: Sequence[Path], weights: str | None) -> tuple[Path, Path]:
    """The bundle and the ONNX file of the same weights."""
    import taxonet
    from networks import write_bundle

    home = folder / (f"{network}-{Path(weights).stem}" if weights else network)
    home.mkdir(parents=True, exist_ok=True)
    bundle, onnx = home / "model.safetensors", home / "served.onnx"
    if not bundle.is_file():
        write_bundle(network, home, list(photos), weights)
    if not onnx.is_file():
        taxonet.export(bundle, to="onnx", out=onnx)
    return bundle, onnx


def summary(bursts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    times = [np.percentile(one["ms"], (50, 99)) if one["ms"] else (np.nan, np.nan) for one in bursts]
    p50, p99 = (float(statistics.median(t[i] for t in times)) for i in (0, 1))
    rate = statistics.median(one["answers"] / one["seconds"] for one in bursts)
    return {"rate": rate, "p50": p50, "p99": p99, "failures": sum(one["failures"] for one in bursts)}


def show(row: dict[str, Any]) -> None:
    servers = row["servers"]
    print(f"\n{row['network']}, float32, photos of {row['photos']}; without a server {row['direct']:.1f} photos/s")
    print(LINE.format("", "clients", "answers/s", "p50, ms", "p99, ms", "failures"))
    for name, levels in servers.items():
        for level, one in levels.items():
            cells = f"{one['rate']:.1f}", f"{one['p50']:.0f}", f"{one['p99']:.0f}", one["failures"]
            print(LINE.format(name, level, *cells))
    ours = servers.get("taxonet", {}).get(32)
    if ours is None:
        return
    print(f"target: overhead over direct prediction at most 15 %: {100 * (1 - ours['rate'] / row['direct']):.1f} %")
    if "fastapi torch" in servers:
        times = ours["rate"] / servers["fastapi torch"][32]["rate"]
        print(f"target: 5 × FastAPI with eager torch at 32 clients: {times:.2f}")
    others = {name: servers[name][32] for name in servers if name not in ("taxonet", "fastapi torch")}
    if others:
        best = max(others, key=lambda name: others[name]["rate"])
        lowest = min(others, key=lambda name: others[name]["p99"])
        times = ours["rate"] / others[best]["rate"]
        print(f"target: 1.5 × the best of LitServe and FastAPI with ONNX Runtime: {times:.2f} × {best}")
        print(f"target: a lower p99 than theirs: {ours['p99']:.0f} ms, {lowest} {others[lowest]['p99']:.0f} ms")


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--network", default="mobilenet_v2")
    made.add_argument("--weights", help="a file of real weights, as for `taxonet train --weights`")
    made.add_argument("--data", type=Path, help="a folder of class folders to make the photos from")
    made.add_argument("--photos", default="500", choices=list(KINDS))
    made.add_argument("--count", type=int, default=64, help="photos")
    made.add_argument("--levels", type=int, nargs="+", default=LEVELS)
    made.add_argument("--only", nargs="+", default=SERVERS, choices=SERVERS)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--seconds", type=float, default=6.0)
    made.add_argument("--port", type=int, default=8300)
    made.add_argument("--work", type=Path)
    made.add_argument("--json", type=Path)
    options = made.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        row = asyncio.run(measure(options, options.work or Path(temporary)))
    show(row)
    if options.json:
        options.json.write_text(json.dumps({"command": " ".join(sys.argv), **row}, indent=2))


if __name__ == "__main__":
    main()
