"""What the server refuses: too much, too slow, too many, or without a token; and that it goes on after each."""

import contextlib
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

PREDICT = "/v1/models/quick/predict"
SECONDS = 2  # the time limit of the tight server


@pytest.fixture(scope="module")
def tight(exported):
    """A server of small limits, with one worker."""
    from tests.serving.conftest import Running

    limits = ["--max-body", 1, "--max-files", 4, "--queue", 4, "--max-connections", 40, "--timeout", SECONDS]
    server = Running(exported, "--workers", 1, "--drain", 0, *limits)
    yield server
    server.close()


def connect(server):
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def everything(connection):
    """All that comes until the server closes, be it while we still send."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(2**16):
            found += part
    return found


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(tight):
    with connect(tight) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nhost: a\r\ncontent-length: 9999999\r\n\r\n".encode())
        answer = everything(connection)
    assert b" 413 " in answer
    assert b"the body has more than 1,048,576 bytes" in answer


def test_a_body_that_grows_too_large_is_refused(tight):
    with connect(tight) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"\xff" * 0x10000 + b"\r\n"
        try:
            for _ in range(20):
                connection.sendall(chunk)
        except ConnectionError:
            pass  # it was closed while we sent, which is as good
        else:
            assert b" 413 " in connection.recv(2**16)
    assert tight.client.get("/healthz").status_code == 200


def test_trailers_without_end_are_refused(tight):
    with connect(tight) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        connection.sendall(b"1\r\na\r\n0\r\n" + b"x: " + b"a" * 200_000)
        assert everything(connection)[:13] in (b"HTTP/1.1 431 ", b"")  # a reset may overtake the answer
    assert 'taxonet_errors_total{kind="connection"}' in tight.client.get("/metrics").text


def test_a_body_where_none_is_needed_is_small(tight):
    assert tight.client.request("GET", "/healthz", content=b"a" * 100_000).status_code == 413


def test_a_form_of_many_fields_and_a_list_of_many_values_are_refused_before_they_are_taken_apart(tight):
    fields = b"".join(b'--b\r\ncontent-disposition: form-data; name="a%d"\r\n\r\nx\r\n' % i for i in range(100))
    form = {"content-type": "multipart/form-data; boundary=b"}
    response = tight.client.post(PREDICT, content=fields + b"--b--\r\n", headers=form)
    assert (response.status_code, response.json()["detail"]) == (413, "the form has more than 20 fields")
    assert tight.client.post(PREDICT, json={"images": [[]] * 1000}).status_code == 413


def test_who_goes_away_leaves_the_queue(serve, exported, png):
    """A worker that stands still has a few pictures, four wait, and their clients go: there is room for others."""
    server = serve(exported, "--workers", 1, "--drain", 0, "--max-batch", 1, "--queue", 4, "--max-files", 4)
    (worker,) = server.workers
    os.kill(worker, signal.SIGSTOP)
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(png('red'))}\r\n\r\n".encode()
    clients = []

    def waiting(count):
        return f'taxonet_queue_depth{{model="quick"}} {count}.0' in server.client.get("/metrics").text

    try:
        while not waiting(4):
            clients.append(connect(server))
            clients[-1].sendall(head + png("red"))
            assert len(clients) < 200
        assert server.client.post(PREDICT, content=png("red")).status_code == 503
        for one in clients:
            one.close()
        assert any(waiting(0) for _ in range(2000))
    finally:
        os.kill(worker, signal.SIGCONT)
    assert server.client.post(PREDICT, content=png("red")).status_code == 200


def test_too_many_files(tight, png):
    response = tight.client.post(PREDICT, files=[("files", ("a.png", png("red")))] * 5)
    assert (response.status_code, response.json()["detail"][:40]) == (413, "the request has more than 4 pictures, se")


def test_a_head_that_is_too_large(tight):
    with connect(tight) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: " + b"a" * 80_000)
        assert everything(connection).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("sent", "what"),
    [
        (b"", "the request's head"),  # a half-open client
        (b"GET / HT", "the request's head"),  # slow loris
        (f"POST {PREDICT} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc".encode(), "the body"),
    ],
)
def test_a_client_that_is_too_slow_is_told_and_dropped(tight, sent, what):
    with connect(tight) as connection:
        connection.sendall(sent)
        answer = everything(connection)  # comes when the time is over
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert f"{what} took longer than {SECONDS} s".encode() in answer


def test_too_many_connections(tight):
    connections = [connect(tight) for _ in range(40)]
    try:
        with connect(tight) as one_more:
            answer = everything(one_more)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in answer
    finally:
        for connection in connections:
            connection.close()
    assert httpx.get(f"{tight.url}/healthz").status_code == 200


def test_a_full_queue_is_refused_with_the_time_to_come_again_and_nothing_else_fails(tight, png):
    data = png("green", size=(250, 250))
    files = [("files", ("a.png", data))] * 4

    def ask(_):
        response = httpx.post(tight.url + PREDICT, files=files, timeout=60)
        return response.status_code, response.headers.get("retry-after"), response.json()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(64)))
    assert {status for status, _, _ in answers} <= {200, 503, 504}
    assert any(status == 200 for status, _, _ in answers)
    busy = [(again, body) for status, again, body in answers if status == 503]
    assert busy
    assert all(int(again) >= 1 and "pictures wait already" in body["detail"] for again, body in busy)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="stops a process by a signal")
def test_an_answer_that_does_not_come_is_given_up(tight, png):
    (worker,) = tight.workers
    os.kill(worker, signal.SIGSTOP)
    try:
        response = tight.client.post(PREDICT, content=png("red"))
    finally:
        os.kill(worker, signal.SIGCONT)
    assert response.status_code == 504
    assert response.json()["detail"] == f"the answer took longer than {SECONDS} s"
    assert tight.client.post(PREDICT, content=png("red")).json()[0]["predictions"][0]["label"] == "red"


def test_what_is_no_http_is_refused(tight):
    with connect(tight) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00" * 40 + b"\r\n\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 400 ")


def test_tokens_guard_all_but_health_and_the_page(serve, exported, png, tmp_path):
    (tmp_path / "tokens").write_text("# two of them\nfirst-secret-token-1\nsecond-secret-token\n")
    server = serve(exported, "--workers", 1, "--drain", 0, "--tokens", tmp_path / "tokens")
    for address in ("/v1/models", "/v1/catalogue", "/v2/models/quick", "/metrics"):
        for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic first-secret-token-1"}):
            response = server.client.get(address, headers=header)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
        for token in ("first-secret-token-1", "second-secret-token"):
            assert server.client.get(address, headers={"authorization": f"Bearer {token}"}).status_code == 200
    for address in ("/", "/healthz", "/readyz", "/v2/health/live", "/openapi.json"):
        assert server.client.get(address).status_code == 200
    assert server.client.post(PREDICT, content=png("red")).status_code == 401
    assert server.client.get("/openapi.json").json()["security"] == [{"token": []}]
    assert not any("secret-token" in (line or "") for line in server.said)


def test_other_origins_only_where_they_are_named(serve, exported, client):
    asked = {"origin": "https://a.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in client.options(PREDICT, headers=asked).headers
    server = serve(exported, "--workers", 1, "--drain", 0, "--cors", "https://a.example")
    allowed = server.client.options(PREDICT, headers=asked)
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    other = server.client.options(PREDICT, headers=asked | {"origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers
