"""What every command does first: it learns to end with one line on a signal, and to outlive a closed output.

Imports nothing that takes time, because the signals of the first second come while other modules are imported.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Any, TextIO

from erulab.errors import Interrupted
from erulab.redaction import print_exception

# Those that ask a run to write a checkpoint and end, once there is one.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
STOPPED_LINE = "stopped; nothing was running"


def prepare_command() -> None:
    """Makes signals end this process with a line and code 75, and writes to a closed pipe harmless.

    Runs, which save a checkpoint first, handle signals themselves (launching.processes, training.stopping).
    """
    handle_stop_signals(_interrupt)
    sys.excepthook = _say_stopped
    sys.stdout, sys.stderr = _outliving(sys.stdout), _outliving(sys.stderr)


def handle_stop_signals(
    handler: Callable[[int, FrameType | None], None], numbers: Iterable[int] = STOP_SIGNALS
) -> dict[int, Any]:
    """Lets a function receive signals, but not those that the caller of this process has told it to ignore (`nohup`).

    Returns:
        The handlers before, by signal: only of those that were changed.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    changed = {number: former for number, former in before.items() if former is not signal.SIG_IGN}
    for number in changed:
        signal.signal(number, handler)
    return changed


class _OutlivingText(io.TextIOWrapper):
    """Text that goes nowhere once its reader (`| head`) has gone, so that whoever prints it goes on."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._lead_nowhere()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._lead_nowhere()

    def _lead_nowhere(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def _outliving(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    return _OutlivingText(
        open(stream.fileno(), "wb", closefd=False),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say_stopped(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Prints one line in place of the traceback of a signal, and ends with the code that Python would not return."""
    if not issubclass(kind, KeyboardInterrupt):
        print_exception(kind, error, traceback)
        return
    print(STOPPED_LINE, file=sys.stderr, flush=True)
    os._exit(Interrupted.code)
