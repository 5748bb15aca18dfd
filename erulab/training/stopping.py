"""Stopping on a signal: the first one asks for a checkpoint, the second one ends the process at once."""

from __future__ import annotations

import os
from types import FrameType

from erulab.command import handle_stop_signals
from erulab.errors import Interrupted


class StopRequest:
    """Notes that a signal has come. Installed once in a worker; the loop reads `requested` after each step."""

    def __init__(self) -> None:
        self.requested = False

    def install(self) -> None:
        handle_stop_signals(self._receive)

    def check(self) -> None:
        """Raises Interrupted if a signal has come; called between pieces of work, where nothing would be lost."""
        if self.requested:
            self.interrupt("stopped between stages")

    def interrupt(self, where: str) -> None:
        """Raises Interrupted with a line that says where the run stopped."""
        raise Interrupted(f"{where}; the same command continues from here")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(Interrupted.code)
        self.requested = True
