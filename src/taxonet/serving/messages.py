"""Messages between the server and a worker, over the worker's stdin and stdout: a head of JSON and a body of bytes.

Both ends are Taxonet's own processes, and still nothing is ever unpickled: a picture is bytes, all else is JSON.
"""

import json
import struct
from asyncio import IncompleteReadError, StreamReader
from collections.abc import Mapping
from typing import Any, BinaryIO, TypeAlias

Head: TypeAlias = Mapping[str, Any]

_LENGTHS = struct.Struct(">IQ")  # of the head and of the body


def pack(head: Head, body: bytes = b"") -> bytes:
    """The bytes that come before the body of a message."""
    text = json.dumps(head, separators=(",", ":")).encode()
    return _LENGTHS.pack(len(text), len(body)) + text


async def receive(reader: StreamReader) -> tuple[dict[str, Any], bytes] | None:
    """The next message, None where the other end is gone."""
    try:
        head, body = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
        text = await reader.readexactly(head)
        return json.loads(text), await reader.readexactly(body) if body else b""
    except (IncompleteReadError, ConnectionError):
        return None


def read(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """The same from a file that blocks."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    head, body = _LENGTHS.unpack(lengths)
    text, data = stream.read(head), stream.read(body)
    return (json.loads(text), data) if len(text) == head and len(data) == body else None
