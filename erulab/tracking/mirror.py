"""What a run holds of its tracker: opens it when there is something new to send, and survives its failures.

After a tracker's first failure there is one warning, and nothing more is sent: metrics.jsonl goes on.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from erulab.options import RunConfig, SavedModel, TrackerName
from erulab.redaction import redacted_text
from erulab.rundir import RunDir
from erulab.tracking.figures import Results, flat_figures, read_results
from erulab.tracking.record import TrackedRun, digest, read_tracked, upload_line, write_tracked

log = logging.getLogger(__name__)


class Service(Protocol):
    """One tracker. Its methods may fail in any way; `Mirror` stands around them."""

    def open(self, known: str | None) -> str:
        """Starts or continues the run; returns its id. `known`: the id that the run folder keeps."""

    def will_be(self, known: str | None) -> bool:
        """Tells whether the run that would be opened is the known one."""

    def log(self, values: Mapping[str, Any]) -> None:
        """Sends the figures of one step, with the step itself as `step` or `<stage>/step`."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Sends final figures: name -> number, word or None."""

    def send(self, results: Results) -> None:
        """Sends verdict, attacks, plots and pages."""

    def close(self, *, failed: bool) -> None:
        """Ends the run; nothing is sent after it."""


class Mirror:
    """One tracked run. It is opened by the first figure of a step, or by results that its tracker does not have.

    A command that finds everything in the cache has neither: it makes no second run and waits for no tracker.
    """

    def __init__(self, service: Service, rundir: RunDir, config: RunConfig) -> None:
        self._service, self._rundir, self._name = service, rundir, config.tracker.name
        # What else is sent on request: to ask for it later is news.
        self._asked = (config.tracker.samples, config.artifacts.model is SavedModel.wandb)
        found = read_tracked(rundir, self._name)
        self._known = found if found is not None and service.will_be(found.id) else None
        self.fresh = self._known is None  # whether the tracker has nothing of this run
        self._open, self._dead = False, False
        self._summarised = False  # whether a stage of this command has come to its end
        self._waiting: dict[str, Any] = {}  # final figures that were not sent, because the run is not open

    def log(self, values: Mapping[str, Any]) -> None:
        """Sends the figures of one step."""
        self._try(lambda: self._service.log(values))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Sends final figures; nested names are joined by `/`. They wait if the run is not open yet."""
        self._summarised = True
        self._waiting |= flat_figures(values)
        if self._open:
            self._send_summary({})

    def finish(self, *, failed: bool) -> str | None:
        """Sends the results that the tracker does not have, and ends the run.

        Args:
            failed: whether the run did not come to its end.
        Returns:
            The command that uploads what was written offline; None if there is nothing to upload.
        """
        results = self._results()
        sent = digest([asdict(results), *self._asked])
        news = self._summarised and (self._known is None or self._known.sent != sent)
        if self._open or news:
            self._send_summary(results.figures)
            if not failed:  # pages and tables of a run that stopped would be half ones
                self._try(lambda: self._service.send(results))
            self._close(failed=failed)
            if not self._dead and self._known is not None:
                self._note(TrackedRun(self._known.id, "" if failed else sent))
        return upload_line(self._rundir) if self._name is TrackerName.wandb else None

    def _send_summary(self, more: Mapping[str, Any]) -> None:
        waiting, self._waiting = {**self._waiting, **more}, {}
        self._try(lambda: self._service.summarise(waiting))

    def _close(self, *, failed: bool) -> None:
        """Ends the run, also after a failure: what has reached the tracker or its folder can still be seen."""
        if self._dead:
            with contextlib.suppress(Exception):  # the first failure has been reported
                self._service.close(failed=True)
        else:
            self._try(lambda: self._service.close(failed=failed))

    def _results(self) -> Results:
        try:
            return read_results(self._rundir)
        except Exception as error:  # a damaged file: the run itself says so
            log.info("no results for %s: %s", self._name.value, error)
            return Results({})

    def _try(self, act: Callable[[], object]) -> None:
        """Opens the run if it is not open, and does something with it; never raises."""
        if self._dead:
            return
        try:
            if not self._open:
                self._known = TrackedRun(self._service.open(self._known.id if self._known else None))
                self._open = True
                self._note(self._known)
            act()
        except Exception as error:
            self._dead = True
            reason = (str(error).splitlines() or [""])[0]
            log.warning(
                "%s: %s: %s; metrics go on in metrics.jsonl",
                self._name.value,
                type(error).__name__,
                redacted_text(reason),
            )

    def _note(self, run: TrackedRun) -> None:
        try:
            write_tracked(self._rundir, self._name, run)
        except OSError as error:  # a full disk: the run itself says so
            log.info("%s: %s", self._rundir.tracker_json, error)
