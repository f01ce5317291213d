"""Payloads: what may be published, and how a large one is cut into chunks or put together."""

from __future__ import annotations

import io
import os
import tempfile
from typing import IO, BinaryIO, Iterable, Iterator, Union, cast

import google_crc32c

__all__ = ["Assembly", "PayloadLike", "chunks_of", "crc32c", "inline_bytes", "known_size"]

CHUNK = 512 * 1024
"""Bytes of a chunk: large enough to be fast, small enough to be many in flight."""

PayloadLike = Union[bytes, bytearray, memoryview, str, "os.PathLike[str]", IO[bytes], Iterable[bytes]]
"""Bytes, text (sent as UTF-8), a path or an open binary file (its content), or an iterable of byte strings."""


def crc32c(data: bytes, crc: int = 0) -> int:
    """CRC-32C of `data`, continued from `crc`."""
    return int(google_crc32c.extend(crc, data))


def inline_bytes(payload: PayloadLike) -> bytes | None:
    """The payload if it is in memory already; None if it has to be read."""
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, (bytearray, memoryview)):
        return bytes(payload)
    if isinstance(payload, str):
        return payload.encode()
    return None


def known_size(payload: PayloadLike) -> int | None:
    """Length of the payload in bytes, if it can be told without reading it."""
    data = inline_bytes(payload)
    if data is not None:
        return len(data)
    if isinstance(payload, os.PathLike):
        return os.stat(payload).st_size
    if hasattr(payload, "seek") and hasattr(payload, "tell"):
        file = cast(BinaryIO, payload)
        try:
            here = file.tell()
            end = file.seek(0, os.SEEK_END)
            file.seek(here)
        except (OSError, io.UnsupportedOperation):  # a pipe
            return None
        return end - here
    return None


def chunks_of(payload: PayloadLike) -> Iterator[bytes]:
    """The payload in pieces of at most CHUNK bytes."""
    data = inline_bytes(payload)
    if data is not None:
        for begin in range(0, len(data), CHUNK):
            yield data[begin : begin + CHUNK]
        return
    if isinstance(payload, os.PathLike):
        with open(payload, "rb") as file:
            yield from _read(file)
        return
    if hasattr(payload, "read"):
        yield from _read(cast(BinaryIO, payload))
        return
    for piece in cast(Iterable[bytes], payload):
        if not isinstance(piece, (bytes, bytearray, memoryview)):
            raise TypeError(f"a payload's pieces must be bytes, not {type(piece).__name__}")
        for begin in range(0, len(piece), CHUNK):
            yield bytes(piece[begin : begin + CHUNK])


def _read(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        if isinstance(chunk, str):
            raise TypeError("open the file in binary mode ('rb')")
        yield chunk


class Assembly:
    """A payload that is being put together from parts: in memory up to `spool_above` bytes, beyond that in a temporary file."""

    def __init__(self, spool_above: int) -> None:
        self._file: BinaryIO = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=max(1, spool_above)))
        self.size = 0
        self.crc32c = 0

    def add(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)
        self.crc32c = crc32c(data, self.crc32c)

    def open(self) -> BinaryIO:
        """The content from its beginning; there is one reader at a time."""
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        self._file.close()
