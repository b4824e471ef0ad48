"""Standard streams that never make a command fail: missing, closed, or without a reader.

A run takes hours, and its results are in files. Output that cannot be printed is therefore dropped,
and the command continues. Only output that should be kept but is lost, because a disk is full for
example, makes the command end with an error.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from ..text import echo

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Lenient(io.RawIOBase):
    """A raw stream that drops what cannot be written.

    Args:
        raw: where to write; ``None`` drops everything.
    """

    def __init__(self, raw: io.RawIOBase | None) -> None:
        self._raw, self._terminal = raw, raw is not None and raw.isatty()
        self.lost: OSError | None = None
        """Why output was lost, or ``None``; output for a reader that has left is not missed."""
        self._dead = raw is None

    def write(self, data: ReadableBuffer) -> int:
        """Write ``data``, or drop it; return its length in bytes."""
        rest = memoryview(data).cast("B")
        length = len(rest)
        while rest and self._raw and not self._dead:
            try:
                rest = rest[self._raw.write(rest) or self._wait() :]
            except OSError as error:
                self._dead = True
                if not self._terminal and error.errno not in (errno.EPIPE, errno.EBADF):
                    self.lost = error
        return length

    def _wait(self) -> int:
        """Wait until a non-blocking descriptor accepts more data; return 0."""
        select.select([], [self.fileno()], [])
        return 0

    def writable(self) -> bool:
        """Return true."""
        return True

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._terminal

    def fileno(self) -> int:
        """Return the file descriptor.

        Raises:
            io.UnsupportedOperation: when there is none.
        """
        return self._raw.fileno() if self._raw else super().fileno()


class Streams:
    """A context in which standard output and error exist, and writing to them never raises."""

    def __enter__(self) -> Streams:
        """Replace the streams that could raise."""
        _occupy_descriptors()
        self._before = sys.stdout, sys.stderr
        self._lenient: dict[str, Lenient] = {}
        for name, stream in zip(("stdout", "stderr"), self._before, strict=True):
            setattr(sys, name, self._usable(name, stream))
        return self

    def _usable(self, name: str, stream: TextIO | None) -> TextIO:
        """Return a stream to use in place of ``stream``."""
        if stream is None or stream.closed:
            return io.TextIOWrapper(io.BufferedWriter(Lenient(None)), "utf-8", "replace")
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)  # with PYTHONUNBUFFERED the buffer is raw itself
        if not isinstance(stream, io.TextIOWrapper) or not isinstance(raw, io.RawIOBase):
            return stream  # set by a program that calls this one, such as a test or a notebook
        with suppress(OSError):
            stream.flush()
        lenient = self._lenient[name] = Lenient(raw)
        return io.TextIOWrapper(
            lenient if raw is buffer else io.BufferedWriter(lenient),  # type: ignore[type-var]
            encoding=stream.encoding,
            # A character that is missing from the encoding is shown by its number.
            errors="backslashreplace" if stream.errors == "strict" else stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the streams; a command that succeeded but whose output was lost fails."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        lost = self._lenient["stdout"].lost if "stdout" in self._lenient else None
        if lost and isinstance(error, SystemExit) and not error.code:
            echo(f"Error: standard output: {lost.strerror}", err=True)
            error.code = 1
        sys.stdout, sys.stderr = self._before


def _occupy_descriptors() -> None:
    """Open those of the descriptors 0 to 2 that are closed.

    Otherwise the next file to be opened would get the number, and output of native code would be
    written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            else:
                os.set_inheritable(null, True)
