"""Files of UTF-8 text, gzipped or not, read line by line; every error names the file."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from erulab.errors import DataError

LONGEST_LINE = 1 << 28  # bytes; a gzip file may expand without end
# Text compresses 3 to 30 times, rows that repeat each other word for word 100 times, and gzip at most 1,032 times.
# Files that expand to less than the second number cannot do harm.
MOST_EXPANDED, ALWAYS_READ = 200, 1 << 24  # times, bytes
# First bytes of files that people give in place of UTF-8 text, and what to do with them.
FOREIGN = (
    (b"\xff\xfe\x00\x00", "is UTF-32; convert it: iconv -f utf-32 -t utf-8"),
    (b"\x00\x00\xfe\xff", "is UTF-32; convert it: iconv -f utf-32 -t utf-8"),
    (b"\xff\xfe", "is UTF-16; convert it: iconv -f utf-16 -t utf-8"),
    (b"\xfe\xff", "is UTF-16; convert it: iconv -f utf-16 -t utf-8"),
    (b"\x1f\x8b", "is compressed by gzip; give it a name that ends in .gz"),
    (b"PK\x03\x04", "is a zip archive; unpack it, or compress it by gzip"),
    (b"PAR1", "is a parquet file; give it a name that ends in .parquet"),
)


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yields (number, line), counted from 1, unzipped where the name ends in .gz.

    Raises:
        DataError: the file is unreadable, damaged gzip, not UTF-8, expands without end, or has a line that is
            too long to be one.
    """
    try:
        with file.open("rb") as stored:
            zipped = file.suffix == ".gz"
            opened: Any = gzip.GzipFile(fileobj=stored) if zipped else stored
            with opened as content:
                yield from _decode_lines(file, content, stored if zipped else None)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file}: the gzip file is truncated or damaged ({error}); fetch or write it again") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def read_text_lines(file: Path) -> tuple[str, ...]:
    """Returns the lines of a plain text file that are not blank.

    Raises:
        DataError: the file is unreadable or empty.
    """
    texts = tuple(line.strip() for _, line in read_lines(file) if line.strip())
    if not texts:
        raise DataError(f"{file}: the file is empty; expected one text per line")
    return texts


def _decode_lines(file: Path, content: IO[bytes], zipped: IO[bytes] | None) -> Iterator[tuple[int, str]]:
    """Yields the lines of a file.

    Args:
        content: the file's bytes, unzipped.
        zipped: the stream that `content` is unzipped from.
    """
    next_check = ALWAYS_READ
    number = found = 0
    # Not text mode: it would cut a text at characters such as U+2028, which JSON allows.
    while line := content.readline(LONGEST_LINE):
        number += 1
        found += len(line)
        if zipped is not None and found > next_check:
            next_check = found + ALWAYS_READ // 16
            if found > MOST_EXPANDED * zipped.tell():
                raise DataError(
                    f"{file}:{number}: the gzip file expands more than {MOST_EXPANDED} times, as no rows of text do; "
                    "if it is right, unpack it with gunzip and name the file it gives"
                )
        if number == 1:
            _check_first_bytes(file, line[:4])
        if len(line) == LONGEST_LINE:
            raise DataError(
                f"{file}:{number}: the line is longer than {LONGEST_LINE >> 20} MiB; write one row per line"
            )
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            bad = error.object[error.start]
            raise DataError(
                f"{file}:{number}: byte 0x{bad:02x} is no valid UTF-8; convert the file: iconv -f latin1 -t utf-8"
            ) from error


def _check_first_bytes(file: Path, start: bytes) -> None:
    for foreign, advice in FOREIGN:
        if start.startswith(foreign):
            raise DataError(f"{file}: {advice}")
    if len(start) > 1 and 0 in (start[0], start[1]):  # text of one byte per letter has no NULs
        order = "be" if start[0] == 0 else "le"
        raise DataError(f"{file}: is UTF-16 without a byte order mark; convert it: iconv -f utf-16{order} -t utf-8")
