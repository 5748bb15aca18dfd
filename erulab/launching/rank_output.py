"""What a rank writes beside its results: its log, and in exit.json how it ended."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from pathlib import Path

from erulab.ranks import Ranks
from erulab.redaction import RedactingFormatter, redacted_text
from erulab.rundir import RunDir

log = logging.getLogger(__name__)


def log_to(file: Path | None) -> None:
    """Sends the log to a file, and warnings to standard error; without a file, warnings only."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file is not None:
        handlers.append(_LogFile(file))
    formatter = RedactingFormatter("%(asctime)s %(name)s %(levelname)s %(message)s")
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    logging.getLogger("erulab").setLevel(logging.INFO if file is not None else logging.WARNING)
    handlers[0].setLevel(logging.WARNING)


def report_exit(rundir: RunDir, ranks: Ranks, code: int, message: str, *, again: bool = False) -> int:
    """Writes exit.json, and prints the message if there is one, without secrets; returns the code.

    Args:
        again: whether the run can go on at once in new processes.
    """
    message = redacted_text(message)
    write_exit(rundir, ranks, code, message, again=again)
    if message:
        log.info("%s", message)
        with contextlib.suppress(OSError):
            print(message, file=sys.stderr, flush=True)
    return code


def write_exit(rundir: RunDir, ranks: Ranks, code: int, message: str, *, again: bool = False) -> None:
    """Writes exit.json, because torchrun returns 1 whatever a rank's code was; the first fault of all ranks is kept."""
    # The disk of the run folder may be the fault that is to be reported: the code is then all that can be told.
    with contextlib.suppress(OSError):
        known = json.loads(rundir.exit_json.read_text()) if rundir.exit_json.exists() else None
        if known is None or known["code"] == 0:
            content = {"code": code, "message": redacted_text(message), "rank": ranks.rank, "again": again}
            rundir.write_json(rundir.exit_json, content)


class _LogFile(logging.FileHandler):
    """A log whose disk may be full: a line that cannot be written is lost, and no traceback stands in its place."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's own name
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)
