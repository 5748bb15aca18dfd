"""Stopping on a signal: the first asks for a checkpoint, the second ends at once."""

from __future__ import annotations

import os
import signal
from types import FrameType

from erulab.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class StopRequest:
    """Installed once in a worker. `requested` is read by the loop after each step."""

    def __init__(self) -> None:
        self.requested = False

    def install(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._receive)

    def check(self) -> None:
        """Between pieces of work that keep nothing to lose: raises Interrupted if a signal has come."""
        if self.requested:
            self.interrupt("stopped between stages")

    def interrupt(self, where: str) -> None:
        raise Interrupted(f"{where}; the same command continues from here")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(Interrupted.code)
        self.requested = True
