"""Reads how far a sweep is: how many of its jobs are done, and what to type to go on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from erulab.errors import Interrupted
from erulab.redaction import redacted_text
from erulab.reporting import escape, shapes
from erulab.reporting.read_results import read_json


@dataclass(frozen=True)
class SweepProgress:
    """A sweep's jobs by outcome, and the command that made it. Overrides that amount to the same run are one job."""

    done: int
    stopped: int
    failed: int
    not_run: int
    command: str

    @property
    def total(self) -> int:
        return self.done + self.stopped + self.failed + self.not_run

    @property
    def is_complete(self) -> bool:
        return self.done == self.total

    @property
    def words(self) -> str:
        """`3 of 9 jobs done, 1 stopped, 5 not run: type the same command`; the command stands in `command`."""
        counts = ((self.stopped, "stopped"), (self.failed, "failed"), (self.not_run, "not run"))
        said = ", ".join([f"{self.done} of {self.total} jobs done", *(f"{n} {word}" for n, word in counts if n)])
        return said if self.is_complete else f"{said}: type the same command"

    def render(self, format: str) -> str:
        """Returns the words and the command as `text` or `md`."""
        if format == "md":
            block = f"\n\n{escape.markdown_block(self.command)}" if self.command else ""
            return f"**{escape.markdown(self.words)}**{block}\n"
        return f"{self.words}{': ' if self.command else ''}{escape.visible(self.command)}\n"


def sweep_progress(folder: Path) -> SweepProgress | None:
    """Reads a sweep's progress from its folder; None if it is no sweep's, or a study's, which keeps no outcomes.

    Raises:
        IntegrityFault: sweep.json is damaged.
    """
    file = folder / "sweep.json"
    if not file.is_file():
        return None
    found = read_json(file, shapes.sweep)
    jobs = found["jobs"]
    if not all("code" in job for job in jobs):
        return None
    codes = list({job["folder"]: job["code"] for job in jobs}.values())
    known = {code: codes.count(code) for code in (0, Interrupted.code, None)}
    failed = len(codes) - sum(known.values())
    command = redacted_text(str(found.get("command") or ""))
    return SweepProgress(known[0], known[Interrupted.code], failed, known[None], command)
