"""Files of UTF-8 text, gzipped or not: opened, and read by lines; every fault names the file."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from erulab.errors import DataError


@contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """Its bytes, unzipped.

    Raises:
        DataError: unreadable, or a damaged gzip file.
    """
    try:
        reads: Any = gzip.open if file.suffix == ".gz" else open
        with reads(file, "rb") as content:
            yield content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file}: the gzip file is truncated or damaged ({error}); fetch or write it again") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """(number, line), counted from 1.

    Raises:
        DataError: as `opened`; a line is no UTF-8.
    """
    with opened(file) as content:
        # Not text mode: it would cut a text at characters such as U+2028, which JSON allows.
        for number, line in enumerate(content, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise no_utf8(file, number, error) from error


def no_utf8(file: Path, line: int, error: UnicodeDecodeError) -> DataError:
    """What is said of a byte that is none."""
    bad = error.object[error.start]
    return DataError(f"{file}:{line}: byte 0x{bad:02x} is no valid UTF-8; convert the file: iconv -f latin1 -t utf-8")
