"""A server that stays up: workers that are killed, models that change, signals under load, a front that dies."""

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from taxonet.weights.networks import open_model, save_network

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="finds the workers in Linux's /proc")  # noqa: PTH110


def test_a_worker_that_is_killed_under_load_costs_no_request_and_comes_back(serve, exported, png):
    server = serve(exported, "--workers", 2, "--drain", 0)
    colours, first = ["red", "green", "blue"], server.workers
    killed = threading.Event()

    def ask(number):
        if number == 150:
            os.kill(first[0], signal.SIGKILL)
            killed.set()
        response = server.client.post("/v1/models/quick/predict", content=png(colours[number % 3], number))
        return response.status_code, response.json()[0]["predictions"][0]["label"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(600)))
    assert answers == [(200, colours[number % 3]) for number in range(600)]
    server.wait_for("worker 0 is back")
    now = server.workers
    assert first[1] in now
    assert first[0] not in now
    assert len(now) == 2
    assert "taxonet_workers_ready 2.0" in server.client.get("/metrics").text
    assert "taxonet_worker_deaths_total 1.0" in server.client.get("/metrics").text


def test_with_its_only_worker_gone_a_request_waits_for_the_next(serve, exported, png):
    server = serve(exported, "--workers", 1, "--drain", 0)
    os.kill(server.workers[0], signal.SIGKILL)
    (answer,) = server.client.post("/v1/models/quick/predict", content=png("blue")).json()
    assert answer["predictions"][0]["label"] == "blue"


def test_a_worker_that_stands_still_is_replaced(serve, exported, png):
    server = serve(exported, "--workers", 1, "--drain", 0, "--timeout", 1)
    os.kill(server.workers[0], signal.SIGSTOP)
    assert server.client.post("/v1/models/quick/predict", content=png("red")).status_code == 504
    server.wait_for("worker 0 stands still, it is killed")
    server.wait_for("worker 0 is back")
    (answer,) = server.client.post("/v1/models/quick/predict", content=png("red")).json()
    assert answer["predictions"][0]["label"] == "red"


def test_sigterm_under_load_loses_no_request_that_was_accepted(serve, exported, png):
    server = serve(exported, "--drain", "0.3")
    data, found, ended = png("red"), Counter(), threading.Event()

    def client_of(_):
        """A new connection for each request, until no more are taken."""
        while not ended.is_set():
            try:
                response = httpx.post(server.url + "/v1/models/quick/predict", content=data, timeout=60)
            except httpx.ConnectError:
                return
            found[response.status_code] += 1
            if sum(found.values()) == 100:
                os.kill(server.process.pid, signal.SIGTERM)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client_of, range(8)))  # what is cut off raises here
    assert set(found) == {200}
    assert found[200] >= 100
    assert server.process.wait(60) == 0


def test_a_server_that_is_about_to_end_is_not_ready_and_still_answers(serve, exported, png):
    server = serve(exported, "--workers", 1, "--drain", "20")
    assert httpx.get(server.url + "/readyz").status_code == 200
    os.kill(server.process.pid, signal.SIGTERM)
    server.wait_for("ending: what was accepted")
    assert httpx.get(server.url + "/readyz").status_code == 503
    response = httpx.post(server.url + "/v1/models/quick/predict", content=png("red"))
    assert response.status_code == 200
    assert response.headers["connection"] == "close"
    assert server.stop() == 0  # the second signal ends it at once


def test_a_changed_model_answers_without_a_request_lost_and_a_broken_one_does_not(serve, small_bundle, png, tmp_path):
    path = tmp_path / "live.safetensors"
    shutil.copy(small_bundle, path)
    info, network = open_model(small_bundle)
    server = serve(path, "--engine", "openvino", "--drain", 0)
    found, ended = [], threading.Event()

    def keep_asking():
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not ended.is_set():
                response = client.post("/v1/models/live/predict", content=png("red"))
                found.append((response.status_code, response.json()[0]["predictions"][0]["label"]))

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(keep_asking) for _ in range(3)]
        save_network(path, replace(info, classes=("rot", "grün", "blau")), network)
        server.wait_for("the new file answers")
        path.write_bytes(b"no bundle")
        server.wait_for("cannot be opened, the old one goes on")
        ended.set()
        for one in asking:
            one.result()
    assert {status for status, _ in found} == {200}
    labels = [label for _, label in found]
    assert labels[0] == "red"
    assert labels[-1] == "rot"
    assert set(labels) == {"red", "rot"}
    assert server.client.get("/v1/models/live").json()["classes"] == ["rot", "grün", "blau"]
    figures = server.client.get("/metrics").text
    assert "taxonet_reloads_total 1.0" in figures
    assert "taxonet_reload_failures_total 1.0" in figures


def test_workers_that_start_again_do_not_need_the_file(serve, small_bundle, exported, png, tmp_path):
    """A broken file, or none, in the place of one that is served stops neither its model nor the others."""
    path = tmp_path / "live.safetensors"
    shutil.copy(small_bundle, path)
    server = serve(path, exported, "--engine", "openvino", "--workers", 1, "--drain", 0)
    path.write_bytes(b"no bundle")
    said = server.wait_for("cannot be opened, the old one goes on")
    assert f"cannot read '{path}'" in said  # the file that people know, and not its copy
    path.unlink()
    os.kill(server.workers[0], signal.SIGKILL)
    server.wait_for("worker 0 is back")
    for name in ("live", "quick"):
        (answer,) = server.client.post(f"/v1/models/{name}/predict", content=png("green")).json()
        assert answer["predictions"][0]["label"] == "green"
    assert server.client.post("/v1/models/live/explain", content=png("green")).status_code == 200


def test_a_log_that_nobody_reads_stops_nothing(exported, png):
    command = [sys.executable, "-m", "taxonet", "serve", str(exported), "--port", "0", "--workers", "1", "--drain", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        url = next(line for line in process.stderr if "listening on" in line).split()[-1]
        process.stderr.close()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        os.kill(int(children.read_text()), signal.SIGKILL)
        response = httpx.post(f"{url}/v1/models/quick/predict", content=png("red"), timeout=60)
        assert response.json()[0]["predictions"][0]["label"] == "red"
        process.terminate()
        assert process.wait(60) == 0


def test_workers_end_with_a_server_that_is_killed(serve, exported):
    server = serve(exported, "--workers", 2)
    handles = [os.pidfd_open(pid) for pid in server.workers]
    server.process.kill()
    try:
        for handle in handles:
            ready, _, _ = select.select([handle], [], [], 60)
            assert ready, "a worker lives on"
    finally:
        for handle in handles:
            os.close(handle)


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["gone.safetensors"], 3, "cannot read 'gone.safetensors': there is no such file"),
        (["MODEL", "MODEL"], 2, "two models are called 'colours'"),
        (["a b=MODEL"], 2, "'a b' is no name for an address"),
        (
            ["MODEL", "--max-batch", "colour=8"],
            2,
            "there is no model 'colour' to set a batch or a wait for; did you mean",
        ),
        (["MODEL", "--max-batch", "colours=0"], 2, "batch of colours is 0, it must be at least 1"),
        (["MODEL", "--timeout", "nan"], 2, "--timeout is nan, it must be a number of seconds above 0"),
        (["MODEL", "--cors", "example.org"], 2, "--cors is 'example.org', it must be an origin such as https://"),
        (["runs/first/model.safetensors"], 3, "cannot read 'runs/first/model.safetensors': there is no such file"),
        (["MODEL", "--max-batch", "few"], 2, "--max-batch is 'few', it must be a number, or NAME=NUMBER"),
        (
            ["MODEL", "--queue", "3"],
            2,
            "--queue is 3 and max_files is 256: the queue must hold the files of one request",
        ),
        (["MODEL", "--port", "70000"], 2, "--port is 70000, it must be from 0"),
        (["MODEL", "--host", "203.0.113.7"], 2, "cannot listen on 203.0.113.7:0: "),
        (["MODEL", "--tokens", "gone"], 3, "the tokens in gone cannot be read: No such file"),
        ([], 2, "serve needs MODELS"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(small_bundle, capfd, words, status, sentence):
    from taxonet.cli.app import main

    words = [word.replace("MODEL", str(small_bundle)) for word in words]
    port = [] if "--port" in words else ["--port", "0"]
    assert main(["serve", *words, *port]) == status
    err = capfd.readouterr().err
    assert err.splitlines()[-1].startswith(f"taxonet: {sentence}")
