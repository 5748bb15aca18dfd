"""Bounds on what a chat template may take: it comes with a checkpoint, and may run or grow without end."""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

# A template of a published model renders a conversation in under a millisecond and adds a few thousand characters.
SECONDS = 10.0
MEMORY = 2 << 30  # bytes beside what the process has
ADDED_CHARACTERS = 1 << 20  # of a rendered conversation, beside 16 times its own text
TIMES_ITS_TEXT = 16


class TemplateTooSlow(Exception):
    """The time for a rendering is over."""


@contextlib.contextmanager
def bounded_rendering(conversations: int) -> Iterator[None]:
    """Ends a rendering that takes too long or too much memory.

    A timer interrupts loops, and the limit of the address space stops what grows within one operation of Python
    (`'a' * 10**10`), which no timer can interrupt. Both belong to the process, and only the main thread may set them:
    rendering in another thread is bounded by `longest_rendering` alone. Models are loaded, and so chat formats are
    built and each template tried, in the main thread.

    Args:
        conversations: how many are rendered; each may take a hundredth of `SECONDS` beside them.
    Raises:
        TemplateTooSlow: the time is over.
        MemoryError: the memory is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seconds = SECONDS * (1 + conversations / 100)

    def stop(number: int, frame: FrameType | None) -> None:
        raise TemplateTooSlow(f"it takes longer than {seconds:g} s")

    former_handler = signal.signal(signal.SIGALRM, stop)
    former_timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        if sys.platform != "darwin":  # which neither tells nor limits the address space
            resource.setrlimit(resource.RLIMIT_AS, (_lower(_address_space() + MEMORY, soft, hard), hard))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *former_timer)
        signal.signal(signal.SIGALRM, former_handler or signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def longest_rendering(characters: int) -> int:
    """Returns the characters that a conversation with so many of its own may be rendered as."""
    return ADDED_CHARACTERS + TIMES_ITS_TEXT * characters


def _lower(*limits: int) -> int:
    known = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    return min(known)


def _address_space() -> int:
    """Returns the bytes of address space that the process has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()
