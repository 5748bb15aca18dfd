"""The pulse of a rank: a thread that writes once per second that the process runs, and where its main thread is.

It starts before torch is imported, so that a rank that stops at any moment is missed (`silence.py` reads the file).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import sysconfig
import threading
import time
from pathlib import Path
from types import FrameType

from erulab.errors import Interrupted

BEAT_SECONDS = 1
# Of every beat: a file of one size is overwritten in place, also on a disk that is full by now. More than the longest
# beat has, in which a character of the place takes up to 6 bytes.
BEAT_BYTES = 2048
WHERE_CHARACTERS = 160
LIBRARIES = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), "<frozen")


def start_pulse(file: Path) -> None:
    """Starts the pulse of this process, whose main thread calls this.

    Args:
        file: where it is written, as JSON: the process id, a number that grows, whether the main thread waits for other
            ranks, and where it is.
    """
    beating = threading.Thread(
        target=_beat, args=(file, threading.get_ident(), os.getppid()), name="pulse", daemon=True
    )
    beating.start()


def _beat(file: Path, main_thread: int, parent: int) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT, 0o666)
    number = 0
    while (frame := sys._current_frames().get(main_thread)) is not None:
        if os.getppid() != parent:  # torchrun was killed: nobody would stop this rank, which may wait for a lost one
            os._exit(Interrupted.code)
        number += 1
        beat = {"pid": os.getpid(), "number": number, "waits": waits_for_ranks(frame), "where": place_of(frame)}
        del frame  # it would keep tensors of the main thread alive
        with contextlib.suppress(OSError):  # the disk is full: the next beat may be written
            os.pwrite(handle, json.dumps(beat).encode().ljust(BEAT_BYTES), 0)
        time.sleep(BEAT_SECONDS)


def waits_for_ranks(innermost: FrameType) -> bool:
    """Tells whether a thread is inside an exchange with other ranks, from its innermost frame."""
    # DeepSpeed waits for some exchanges without a frame of torch.distributed. Its engine is on the stack of a forward
    # too, so only its innermost frame says that it waits.
    if innermost.f_globals.get("__name__", "").startswith("deepspeed."):
        return True
    frame: FrameType | None = innermost
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("torch.distributed."):
            return True
        frame = frame.f_back
    return False


def place_of(innermost: FrameType) -> str:
    """Returns `file:line (function)` of the innermost frame that is not a library's, else of the innermost."""
    frame: FrameType | None = innermost
    while frame is not None and frame.f_code.co_filename.startswith(LIBRARIES):
        frame = frame.f_back
    shown = frame or innermost
    name = "/".join(Path(shown.f_code.co_filename).parts[-3:])
    return f"{name}:{shown.f_lineno} ({shown.f_code.co_name})"[-WHERE_CHARACTERS:]
