"""Sends a run to wandb. The only module that imports wandb.

What was typed wins over the environment (WANDB_PROJECT, WANDB_ENTITY, WANDB_RUN_GROUP), which wins over the defaults. A
sweep's agent wins over both where it names run, project and entity: the trial is the agent's.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from erulab.options import RunConfig, SavedModel
from erulab.redaction import redacted, redacted_text
from erulab.reporting import page_without_texts
from erulab.rundir import RunDir
from erulab.tracking import naming
from erulab.tracking.config_sent import sent_config
from erulab.tracking.figures import Results
from erulab.tracking.wandb_login import has_wandb_key

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10  # wandb may delay the start of a run this long
UPLOAD_SECONDS = 60  # and its end this long
PROJECT = "erulab"
# Which extremes the summary keeps, beside the last value: what a table of runs is sorted by.
EXTREMES = {
    "loss": "min,last",
    "forget_loss": "min,max,last",
    "retain_loss": "min,last",
    "grad_norm": "max,last",
    "adversary/gain": "max,last",
    "keep/knowledge_left": "min,last",
    "keep/utility": "max,last",
    "eval/*": "min,max,last",
}


class WandbService:
    """One wandb run."""

    def __init__(self, rundir: RunDir, config: RunConfig) -> None:
        self._rundir, self._config = rundir, config
        self._run: Any = None

    def will_be(self, known: str | None) -> bool:
        return _named_id() in (None, known)

    def open(self, known: str | None) -> str:
        # Set before the import: wandb prints where it found a key even when told to be silent.
        os.environ.setdefault("WANDB_SILENT", "true")
        # wandb's error reports delay the end of a process by 20 s if the network drops them.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        if os.environ.get("WANDB_MODE") == "":  # wandb would refuse it
            del os.environ["WANDB_MODE"]
        identity = _named_id() or known or new_id(self._rundir)
        mode = os.environ.get("WANDB_MODE") or ("online" if has_wandb_key() else "offline")
        described = self._described(identity)
        try:
            self._start(mode, described)
        except Exception as error:
            if mode != "online":
                raise
            reason = redacted_text((str(error).splitlines() or [""])[0])
            log.warning("wandb: %s: %s; metrics go on in metrics.jsonl and offline", type(error).__name__, reason)
            _release()
            self._start("offline", described)
        return identity

    def log(self, values: Mapping[str, Any]) -> None:
        self._run.log(dict(values))

    def summarise(self, values: Mapping[str, Any]) -> None:
        self._run.summary.update(redacted(dict(values)))

    def send(self, results: Results) -> None:
        import wandb

        run = self._run
        if results.words:
            run.notes = "\n\n".join(filter(None, (_own_notes(), results.words)))
        if results.attacks:
            run.log({"attacks": _wandb_table(results.attacks)})
        if self._rundir.plots.is_dir():
            run.log({f"plots/{p.stem}": wandb.Image(str(p)) for p in sorted(self._rundir.plots.glob("*.png"))})
        self._send_samples()
        self._send_report()
        self._send_model()
        if results.collapsed:
            title = f"COLLAPSED: {run.name}"
            run.alert(title=title, text=results.words, level="WARN", wait_duration=0)

    def close(self, *, failed: bool) -> None:
        try:
            if self._run is not None:
                self._run.finish(exit_code=int(failed))
        finally:
            # finish() can return before the service has written the folder, which the user may copy or upload next.
            _release()

    def _described(self, identity: str) -> dict[str, Any]:
        """Returns what the run is called, where it belongs and what its settings are, as wandb.init takes them."""
        tracker = self._config.tracker
        project: str | None = tracker.project or os.environ.get("WANDB_PROJECT") or PROJECT
        entity = tracker.entity
        if os.environ.get("WANDB_SWEEP_ID"):  # its agent has set both
            project, entity = None, None
        return {
            "project": project,
            "entity": entity,
            "group": tracker.group or os.environ.get("WANDB_RUN_GROUP"),
            "id": identity,
            "name": naming.run_name(self._rundir, self._config),
            "job_type": os.environ.get("WANDB_JOB_TYPE") or naming.job_type(self._config),
            "tags": naming.tags(self._config),
            "notes": _own_notes() or None,
            "config": sent_config(self._rundir, self._config, _sweep_parameters()),
        }

    def _start(self, mode: str, described: Mapping[str, Any]) -> None:
        import wandb  # takes a second, and tracker=none must work without it

        _make_media_folder()
        settings = wandb.Settings(
            init_timeout=CONNECT_SECONDS,
            finish_timeout=UPLOAD_SECONDS,
            finish_timeout_raises=True,
            console="off",
            silent=True,
            # Git remotes and code can hold secrets. env.json, which is sent, has the commit.
            disable_git=True,
            save_code=False,
            x_disable_stats=True,
        )
        folder = str(self._rundir.path)
        self._run = run = wandb.init(**described, resume="allow", dir=folder, mode=mode, settings=settings)  # type: ignore[arg-type]
        if not run.offline:
            print(f"wandb: {run.url}", flush=True)
        run.define_metric("*", step_metric="step")
        for name, kept in EXTREMES.items():
            run.define_metric(name, step_metric="step", summary=kept)
        for stage in ("target", *self._config.oracles):
            run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            run.define_metric(f"{stage}/loss", step_metric=f"{stage}/step", summary="min,last")

    def _send_samples(self) -> None:
        if self._config.tracker.samples and self._rundir.samples_json.is_file():
            self._run.log({"samples": _wandb_table(redacted(self._rundir.read_json(self._rundir.samples_json)))})

    def _send_report(self) -> None:
        """Sends the report page and the figures behind it as one artifact, without generated texts unless allowed."""
        import wandb

        rundir = self._rundir
        if not rundir.report_html.is_file():
            return
        artifact = wandb.Artifact(f"report-{self._run.id}", type="report")
        if self._config.tracker.samples:
            artifact.add_file(str(rundir.report_html.resolve()), "report.html", policy="immutable")
        else:
            page = Path(self._run.dir).parent / "report.html"
            rundir.write_text(page, page_without_texts(rundir))
            artifact.add_file(str(page), "report.html", policy="immutable")
        for file in (rundir.scores_json, rundir.intervals_json, rundir.attacks_json):
            if file.is_file():
                # Not copied into wandb's cache in the user's home: the run folder keeps them.
                artifact.add_file(str(file.resolve()), file.name, policy="immutable")
        self._run.log_artifact(artifact)

    def _send_model(self) -> None:
        import wandb

        if self._config.artifacts.model is SavedModel.wandb and self._rundir.model.is_dir():
            artifact = wandb.Artifact(f"model-{self._run.id}", type="model", metadata=naming.choices(self._config))
            artifact.add_dir(str(self._rundir.model.resolve()), policy="immutable")
            self._run.log_artifact(artifact)


def new_id(rundir: RunDir) -> str:
    """Returns an id for the run of a folder: the folder's name, and a random part.

    The same settings in another folder are another run, so that curves do not mix.
    """
    name = re.sub(r"[^\w-]", "-", rundir.path.name)[:80]
    return f"{name}-{secrets.token_hex(4)}"


def _named_id() -> str | None:
    """Returns the id that an agent, or the user, has set for the run."""
    return os.environ.get("WANDB_RUN_ID") or None


def _own_notes() -> str:
    """Returns the notes that the user has set for the run."""
    return redacted_text(os.environ.get("WANDB_NOTES", "").strip())


def _make_media_folder() -> None:
    """Makes wandb's folder for tables and images again, if it is gone.

    wandb makes it when it is imported, and removes it when the process ends. Jobs of a sweep are copies of one process
    that has imported it, so that the first job to end has removed the folder of the others.
    """
    from wandb.sdk.data_types._private import MEDIA_TMP

    if not Path(MEDIA_TMP.name).is_dir():
        MEDIA_TMP.name = tempfile.mkdtemp("wandb-media")
        atexit.register(MEDIA_TMP.cleanup)


def _sweep_parameters() -> list[str]:
    """Returns the keys that a sweep's agent sets: it writes them to a file that wandb puts into the run's config."""
    file = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    if not file or not Path(file).is_file():
        return []
    return [key for key in yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {} if key != "wandb_version"]


def _release() -> None:
    """Ends wandb's service, which holds files and the id of a run that could not start."""
    try:
        import wandb

        wandb.teardown()
    except Exception as error:
        log.info("wandb: %s", error)


def _wandb_table(rows: Any) -> Any:
    import wandb

    columns = list(dict.fromkeys(name for row in rows for name in row))
    return wandb.Table(columns=[*columns], data=[[_column_value(row.get(name)) for name in columns] for row in rows])


def _column_value(value: Any) -> Any:
    """Writes nested values as JSON, because wandb takes the type of a column from its first row."""
    return json.dumps(value) if isinstance(value, dict | list) else value
