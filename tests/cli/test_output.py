"""Counts for people, and JSON for programs whatever the letters are."""

import io
import json
import sys

import pytest

from taxonet.cli.output import parse_count, print_json, print_table
from taxonet.figures import duration, short_count


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_json_is_valid_in_every_encoding(monkeypatch, encoding):
    value = {"label": "Käfer 猫", "path": "caf\udce9.png", "tuple": (1, 2.5, None, True)}
    written = io.BytesIO()
    with monkeypatch.context() as patched:
        stdout = io.TextIOWrapper(written, encoding=encoding, errors="backslashreplace")
        patched.setattr(sys, "stdout", stdout)
        print_json(value)
        stdout.flush()
    assert json.loads(written.getvalue().decode(encoding)) == {**value, "tuple": [1, 2.5, None, True]}


def test_json_has_no_nan(capsys):
    print_json({"a": [float("nan"), {"b": float("inf")}], "umlaut": "ä"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": [None, {"b": None}], "umlaut": "ä"}
    assert "ä" in out  # readable where it can be


def test_tables_are_aligned(capsys):
    print_table(("name", "n"), [("a", "7"), ("longer", "1000")], right=frozenset({1}))
    assert capsys.readouterr().out.splitlines() == ["name       n", "a          7", "longer  1000"]


@pytest.mark.parametrize(
    ("text", "count"),
    [("5000000", 5_000_000), ("5M", 5_000_000), ("1.5g", 1_500_000_000), ("2 b", 2 * 10**9), ("7k", 7000)],
)
def test_counts_are_read(text, count):
    assert parse_count(text, "--max-params") == count


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "–"), (0, "0"), (999, "999"), (7_978_856, "7.98 M"), (5_420_000_000, "5.42 G"), (769_162, "769 k")],
)
def test_counts_are_printed(count, text):
    assert short_count(count) == text


def test_times_for_people():
    assert [duration(s) for s in (0.2, 41, 300, 7200)] == ["1 s", "41 s", "5 min", "2.0 h"]
