"""Files that are damaged: in place, so that hard links are damaged too."""

from __future__ import annotations

from pathlib import Path


def flip_bit(file: Path, at: float = 0.5, bit: int = 6) -> None:
    """Flips one bit.

    Args:
        at: where its byte is, as a share of the file, from 0 to below 1.
        bit: its number in the byte, 0 to 7.
    """
    content = bytearray(file.read_bytes())
    content[int(len(content) * at)] ^= 1 << bit
    overwrite(file, bytes(content))


def halve(file: Path) -> None:
    """Cuts a file to half its length."""
    content = file.read_bytes()
    overwrite(file, content[: len(content) // 2])


def empty(file: Path) -> None:
    """Leaves nothing in a file."""
    overwrite(file, b"")


def overwrite(file: Path, content: bytes) -> None:
    """Replaces the content of a file that exists."""
    with file.open("r+b") as stream:
        stream.truncate(0)
        stream.write(content)
