"""Two replicas behind nginx, one of them killed under load and started again: how many requests fail.

    python benchmarks/serving/replicas.py [--clients 16] [--seconds 20] [--data PHOTOS] [--json FILE]

nginx (Debian: apt-get install nginx-light) runs with deploy/nginx.conf on loopback; every process of the first replica
gets SIGKILL after a third of the time, and the replica is started again after two thirds.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from load import Server, burst

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "predict"))

from photos import make_photos

ROOT = Path(__file__).resolve().parents[2]
NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log warn; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    include {conf};
}}
"""


class Replica(Server):
    """A server of Taxonet's; `kill` takes all its processes at once."""

    def __init__(self, port: int, model: str) -> None:
        super().__init__("taxonet", port, Path(model), Path())

    def kill(self) -> None:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Front:
    """What `burst` takes for a server: nginx."""

    name, port, address, field = "nginx", 8000, "/v1/models/model/predict?top=1", "files"


async def trial(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    photos = [path.read_bytes() for path in make_photos(folder / "photos", "500", 32, options.data)]
    conf = folder / "nginx.conf"
    conf.write_text(NGINX.format(folder=folder, conf=ROOT / "deploy" / "nginx.conf"))
    replicas = [Replica(8001, options.model), Replica(8002, options.model)]
    nginx = subprocess.Popen([shutil.which("nginx") or "/usr/sbin/nginx", "-p", str(folder), "-c", str(conf)])
    try:
        for replica in replicas:
            await replica.ready(photos[0])
        load = asyncio.create_task(burst(Front(), photos, options.clients, options.seconds))  # type: ignore[arg-type]
        await asyncio.sleep(options.seconds / 3)
        replicas[0].kill()
        await asyncio.sleep(options.seconds / 3)
        replicas[0] = Replica(8001, options.model)
        found = await load
    finally:
        nginx.terminate()
        for replica in replicas:
            replica.stop()
    p50, p99, worst = (float(value) for value in np.percentile(found.pop("ms"), (50, 99, 100)))
    return found | {"p50": p50, "p99": p99, "worst": worst, "clients": options.clients}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="efficientnet_lite0")
    made.add_argument("--clients", type=int, default=16)
    made.add_argument("--seconds", type=float, default=20.0)
    made.add_argument("--data", type=Path, help="a folder of class folders to make the photos from")
    made.add_argument("--json", type=Path)
    options = made.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = asyncio.run(trial(options, Path(temporary)))
    print(
        f"{found['answers']} requests answered in {found['seconds']:.0f} s by {found['clients']} clients, "
        f"{found['failures']} failed; p50 {found['p50']:.0f}, p99 {found['p99']:.0f}, longest {found['worst']:.0f} ms"
    )
    if options.json:
        options.json.write_text(json.dumps({"command": " ".join(sys.argv), **found}, indent=2))


if __name__ == "__main__":
    main()
