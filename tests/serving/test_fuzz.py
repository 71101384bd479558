"""Thousands of damaged pictures and bodies: none makes the server fail, no worker is lost, memory stays as it is."""

import io
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image

PREDICT = "/v1/models/quick/predict"
PICTURES, BODIES = 4000, 1000
CLIENTS = 4
GROWTH = 1.05  # of memory over the second half


@pytest.fixture(scope="module")
def seeds(pixels):
    """Whole pictures of every format, and an archive, a script and a page."""
    found = []
    for kind, options in (
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("BMP", {}),
        ("TIFF", {}),
    ):
        data = io.BytesIO()
        Image.fromarray(pixels("green", 1, (64, 48))).save(data, kind, **options)
        found.append(data.getvalue())
    return [*found, b"PK\3\4" + b"\0" * 200, b"#!/bin/sh\nexit\n", b"<html><svg onload=alert(1)>"]


def mutated(seeds, rng):
    """Cut, overwritten, doubled, with another's head, as another's tail."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 4)):
        way, place = rng.randrange(6), rng.randrange(max(1, len(data)))
        if way == 0:
            del data[place:]
        elif way == 1:
            for _ in range(rng.randint(1, 20)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        elif way == 2:
            data[place:place] = rng.randbytes(rng.randint(1, 400))
        elif way == 3:
            data[:place] = rng.choice(seeds)[:place]
        elif way == 4:
            data += rng.choice(seeds)
        else:  # sizes that are not true
            data[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0"])
        data = data or bytearray(b"\0")
    return bytes(data)


def body_of(seeds, rng):
    """A request whose form is damaged, or lies about what it is."""
    boundary = b"----fuzz"
    part = (
        b"--"
        + boundary
        + b'\r\ncontent-disposition: form-data; name="files"; filename="a"\r\n\r\n'
        + mutated(seeds, rng)
    )
    form = part * rng.randint(1, 3) + b"\r\n--" + boundary + b"--\r\n"
    text = json.dumps(
        {
            "images": [rng.choice(["AAAA", "?", "", 7, None, {}, {"data": 1}, {"data": "AAAA", "name": 3}, []])],
            "top": rng.choice([1, "x", -1, 10**30, None, 1e400]),
        }
    )
    body, kind = rng.choice(
        [
            (form, "multipart/form-data; boundary=----fuzz"),
            (form, "multipart/form-data"),
            (text.encode(), "application/json"),
            (form, "application/json"),
            (text.encode(), "multipart/form-data; boundary=----fuzz"),
        ]
    )
    if rng.random() < 0.6:
        body = mutated([body], rng)
    return body, kind


def memory(server):
    """Bytes that the server and its workers hold."""
    pids = [server.process.pid, *server.workers]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from Linux's /proc")
def test_damaged_pictures_and_bodies(serve, exported, seeds, png):
    server = serve(exported, "--drain", 0)
    before = server.workers

    def send(numbers):
        with httpx.Client(base_url=server.url, timeout=60) as client:
            return [ask(client, number) for number in numbers]

    def ask(client, number):
        rng = random.Random(number)
        if number % 5 == 4:
            body, kind = body_of(seeds, rng)
            response = client.post(PREDICT, content=body, headers={"content-type": kind})
        else:
            response = client.post(PREDICT, content=mutated(seeds, rng), headers={"content-type": "image/jpeg"})
        if response.status_code == 200:
            for answer in response.json():
                assert (answer["error"] is None) != (answer["predictions"] == [])
                assert "\n" not in (answer["error"] or "")
        return response.status_code

    def run(numbers):
        with ThreadPoolExecutor(CLIENTS) as pool:
            return [status for part in pool.map(send, [numbers[i::CLIENTS] for i in range(CLIENTS)]) for status in part]

    total = PICTURES + BODIES
    statuses = run(range(total // 2))
    half = memory(server)
    statuses += run(range(total // 2, total))
    assert len(statuses) == total
    assert max(statuses) < 500
    assert statuses.count(200) >= PICTURES
    assert server.workers == before
    assert memory(server) < GROWTH * half
    assert server.client.post(PREDICT, content=png("red")).json()[0]["predictions"][0]["label"] == "red"
