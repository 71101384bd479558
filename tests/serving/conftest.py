"""A real server in a process of its own, on a port that is free, with a small bundle and its OpenVINO export."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

import taxonet


class Running:
    """`taxonet serve` with these words; `said` are the lines of its log."""

    def __init__(self, *words):
        command = [sys.executable, "-m", "taxonet", "serve", *map(str, words), "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.said, self.changed = [], threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.url = self.wait_for("listening on ").rpartition(" ")[2]
        self.client = httpx.Client(base_url=self.url, timeout=120)

    def _read(self):
        for line in self.process.stderr:
            with self.changed:
                self.said.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.said.append(None)  # it has ended
            self.changed.notify_all()

    def wait_for(self, words, seconds=120):
        """The first line of the log with these words."""

        def line():
            return next((line for line in self.said if line and words in line), None)

        with self.changed:
            self.changed.wait_for(lambda: line() or None in self.said, seconds)
            found = line()
        assert found, f"the server never said '{words}': {self.said}"
        return found

    @property
    def workers(self):
        """The processes of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.wait(60)

    def close(self):
        self.client.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stderr.close()


@pytest.fixture(scope="session")
def exported(small_bundle, tmp_path_factory):
    """The small bundle as OpenVINO's files, which open without torch."""
    return taxonet.export(small_bundle, to="openvino", out=tmp_path_factory.mktemp("export") / "quick.xml").files[0]


@pytest.fixture(scope="session")
def running(small_bundle, exported):
    """A server of `colours`, a bundle, and `quick`, its export."""
    server = Running(small_bundle, exported, "--engine", "openvino", "--drain", "0")
    yield server
    server.close()


@pytest.fixture(scope="session")
def client(running):
    return running.client


@pytest.fixture
def serve():
    """Start a server of one's own: `serve(model, "--workers", 1)`."""
    servers = []

    def start(*words):
        servers.append(Running(*words))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def png(pixels):
    """The bytes of a picture of a colour."""
    import io

    from PIL import Image

    def encode(colour, seed=0, size=(40, 48)):
        data = io.BytesIO()
        Image.fromarray(pixels(colour, seed, size)).save(data, "PNG")
        return data.getvalue()

    return encode
