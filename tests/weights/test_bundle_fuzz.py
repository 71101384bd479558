"""Two thousand damaged bundles: each is read, or refused with a BundleError; nothing else may come out."""

import json
import math
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taxonet.errors import BundleError
from taxonet.weights.bundle import BundleInfo, read_info, read_tensors

SEED = 20261123
ROUNDS = 2000
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 8, 640, 2**31, 2**63, 2**64, -(2**70), 10**30, 0.5, -0.0, 1e308),
    *("", "a", "F32", "F4", "rgb", "\ud800", "\x00", "x" * 5000, "2026-01-01T00:00:00Z"),
    *([], [0], [0, 8], [1, [2]], [True], ["a", "a"], {}, {"a": 1}, {"schema": 1}, float("nan"), float("inf")),
]


def split(data: bytes) -> tuple[bytes, bytes]:
    length = struct.unpack("<Q", data[:8])[0]
    return data[8 : 8 + length], data[8 + length :]


def joined(header: bytes, rest: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + rest


def flip_bits(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    end = len(data) if dice.random() < 0.3 else 8 + len(split(data)[0])  # mostly in the header
    for _ in range(dice.choice((1, 1, 2, 8, 64))):
        changed[dice.randrange(end)] ^= 1 << dice.randrange(8)
    return bytes(changed)


def truncate(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def insert(data: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(data) + 1)
    return data[:place] + dice.randbytes(dice.choice((1, 2, 8, 100))) + data[place:]


def delete(data: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(data))
    return data[:place] + data[place + dice.choice((1, 2, 8, 100)) :]


def change_length(data: bytes, dice: random.Random) -> bytes:
    length = len(split(data)[0])
    near = (length + dice.randint(-20, 20), 2 ** dice.randrange(64), dice.randrange(2**64), 0, len(data))
    return struct.pack("<Q", dice.choice(near)) + data[8:]


def swap_text(data: bytes, dice: random.Random) -> bytes:
    header, rest = split(data)
    tokens = (
        b"0",
        b"1",
        b":",
        b",",
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b"null",
        b"NaN",
        b"-",
        b"e9",
        b"\\",
        b"F32",
    )
    old, new = dice.sample(tokens, 2)
    return joined(header.replace(old, new, dice.choice((1, 2, -1))), rest)


def mutated(value: Any, dice: random.Random) -> Any:
    """A JSON value with one change somewhere inside."""
    if isinstance(value, dict) and value and dice.random() < 0.8:
        key = dice.choice(list(value))
        change = dice.randrange(8)
        if change == 0:
            return {name: part for name, part in value.items() if name != key}
        if change == 1:
            return {(name if name != key else name + "x"): part for name, part in value.items()}
        if change == 2:
            return value | {dice.choice(("", "new", "num_classes", "in_channels")): dice.choice(VALUES)}
        return value | {key: mutated(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.6:
        place = dice.randrange(len(value))
        return dice.choice(
            (
                value[:place] + value[place + 1 :],
                [*value, value[place]],
                [*value[:place], mutated(value[place], dice), *value[place + 1 :]],
            )
        )
    return dice.choice(VALUES)


def change_header(data: bytes, dice: random.Random) -> bytes:
    header, rest = split(data)
    return joined(json.dumps(mutated(json.loads(header), dice)).encode(), rest)


def change_info(data: bytes, dice: random.Random) -> bytes:
    header, rest = split(data)
    fields = json.loads(header)
    info = json.loads(fields["__metadata__"]["taxonet"])
    for _ in range(dice.choice((1, 1, 1, 3))):
        info = mutated(info, dice)
    return joined(json.dumps({**fields, "__metadata__": {"taxonet": json.dumps(info)}}).encode(), rest)


def deepen(data: bytes, dice: random.Random) -> bytes:
    header, rest = split(data)
    levels = dice.choice((5, 50, 900, 1100, 20_000))
    deep = dice.choice((b'{"a":' * levels + b"1" + b"}" * levels, b"[" * levels + b"]" * levels))
    fields = json.loads(header)
    if dice.random() < 0.5:
        return joined(header.replace(b"{", b'{"deep":' + deep + b",", 1), rest)
    info = fields["__metadata__"]["taxonet"].replace('"metrics": {', f'"metrics": {{"deep": {deep.decode()}, ')
    return joined(json.dumps({**fields, "__metadata__": {"taxonet": info}}).encode(), rest)


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    *(flip_bits, truncate, insert, delete, change_length, swap_text, deepen),
    *([change_header] * 4),
    *([change_info] * 6),
]


def outcome(path: Path, read: Callable[[Path], Any]) -> str:
    sentence = ""
    try:
        result = read(path)
    except BundleError as error:
        sentence = str(error)
    if sentence:
        assert sentence.isprintable(), ascii(sentence)
        assert len(sentence) < 1000
        return "refused"
    if isinstance(result, BundleInfo):
        assert BundleInfo.from_json(result.to_json()) == result
        assert math.isfinite(result.temperature)
    return "read"


def test_damaged_bundles_are_read_or_refused(bundle: Path) -> None:
    dice = random.Random(SEED)
    original = bundle.read_bytes()
    victim = bundle.with_name("victim.safetensors")
    seen: dict[tuple[str, str], int] = {}
    for number in range(ROUNDS):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        victim.write_bytes(mutation(original, dice))
        result = outcome(victim, read_info), outcome(victim, read_tensors)
        seen[result] = seen.get(result, 0) + 1
    assert sum(seen.values()) == ROUNDS
    # the mutations must reach every depth, or the test tests nothing
    assert min(seen.get(("read", "read"), 0), seen.get(("refused", "read"), 0)) > 50
    assert seen.get(("refused", "refused"), 0) > 500


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    path = tmp_path / "noise.safetensors"
    for size in range(200):
        path.write_bytes(dice.randbytes(size))
        with pytest.raises(BundleError):
            read_info(path)
        with pytest.raises(BundleError):
            read_tensors(path)
