"""Mirrors a run's figures to wandb. The only module that imports wandb.

Nothing here can fail a run: after wandb's first failure there is one warning, and nothing more is sent.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import netrc
import os
import re
import socket
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from erulab.options import RunConfig, TrackerOptions
from erulab.redaction import redacted
from erulab.rundir import RunDir

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10  # wandb may delay the start of a run this long
UPLOAD_SECONDS = 60  # and its end this long


class WandbMirror:
    """One wandb run. After its first failure it does nothing more."""

    def __init__(self, rundir: RunDir, config: RunConfig) -> None:
        self._rundir = rundir
        self._run: Any = None
        self._folder: Path | None = None
        self._offline = False
        tracker = config.tracker
        # Set before the import: wandb prints where it found a key even when told to be silent.
        os.environ.setdefault("WANDB_SILENT", "true")
        # wandb's error reports delay the end of a process by 20 s if the network drops them.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        if os.environ.get("WANDB_MODE") == "":  # wandb would refuse it
            del os.environ["WANDB_MODE"]
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        if not self._start(mode, tracker, config) and mode == "online":
            self._release()
            self._start("offline", tracker, config)

    def log(self, values: dict[str, Any]) -> None:
        self._try(lambda run: run.log(values))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Sends final figures; nested names are joined by `/`."""
        self._try(lambda run: run.summary.update(_flat_summary(values)))

    def finish(self, options: TrackerOptions) -> str | None:
        self._try(self._send_results)
        if options.samples:
            self._try(self._send_samples)
        self._try(lambda run: run.finish())
        # finish() can return before the service has written the folder, which the user may copy or upload next.
        self._release()
        if self._folder is None or not self._offline:
            return None
        return f"wandb sync {self._folder}"

    def _start(self, mode: str, options: TrackerOptions, config: RunConfig) -> bool:
        try:
            import wandb  # takes a second, and tracker=none must work without it

            settings = wandb.Settings(
                init_timeout=CONNECT_SECONDS,
                finish_timeout=UPLOAD_SECONDS,
                finish_timeout_raises=True,
                console="off",
                silent=True,
                # Git remotes and code can hold secrets.
                disable_git=True,
                save_code=False,
                x_disable_stats=True,
            )
            self._run = wandb.init(
                project=options.project,
                group=options.group,
                id=run_id(self._rundir),
                name=self._rundir.path.name,
                resume="allow",
                dir=str(self._rundir.path),
                config=plain_config(config),
                mode=mode,  # type: ignore[arg-type]
                settings=settings,
            )
            self._run.define_metric("*", step_metric="step")
            for stage in ("target", *config.oracles):
                self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._offline = bool(self._run.offline)
            self._folder = Path(self._run.dir).parent
        except Exception as error:
            self._stop_mirroring(error, "; metrics go on in metrics.jsonl and offline" if mode == "online" else "")
            return False
        return True

    def _release(self) -> None:
        """Ends wandb's service, which holds files and the id of a run that could not start."""
        try:
            import wandb

            wandb.teardown()
        except Exception as error:
            log.info("wandb: %s", error)

    def _try(self, act: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            act(self._run)
        except Exception as error:
            # Data that reached the folder before the failure can still be uploaded.
            self._offline = True
            self._stop_mirroring(error, "; metrics go on in metrics.jsonl")

    def _stop_mirroring(self, error: Exception, consequence: str) -> None:
        self._run = None
        reason = (str(error).splitlines() or [""])[0]
        log.warning("wandb: %s: %s%s", type(error).__name__, redacted(reason), consequence)

    def _send_results(self, run: Any) -> None:
        import wandb

        if self._rundir.attacks_json.is_file():
            run.log({"attacks": _wandb_table(self._read_rows(self._rundir.attacks_json))})
        if self._rundir.plots.is_dir():
            run.log({f"plots/{p.stem}": wandb.Image(str(p)) for p in sorted(self._rundir.plots.glob("*.png"))})

    def _send_samples(self, run: Any) -> None:
        if self._rundir.samples_json.is_file():
            run.log({"samples": _wandb_table(self._read_rows(self._rundir.samples_json))})

    def _read_rows(self, file: Path) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        return rows


def run_id(rundir: RunDir) -> str:
    """Returns wandb's id of the run: its folder's name, and a hash of host and path.

    The same folder continues its wandb run. The same settings in another folder are another run, so that curves do not
    mix.
    """
    name = re.sub(r"[^\w-]", "-", rundir.path.name)[:80]
    place = f"{socket.gethostname()}:{rundir.path.resolve()}"
    return f"{name}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def plain_config(config: RunConfig) -> dict[str, Any]:
    """Returns the config as JSON-like values, with secrets redacted."""
    plain: dict[str, Any] = redacted(_json_like(dataclasses.asdict(config)))
    return plain


def _json_like(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_like(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_like(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _has_key() -> bool:
    """Returns whether wandb could log in without asking."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    files = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        try:
            if file.is_file() and netrc.netrc(str(file)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _wandb_table(rows: list[dict[str, Any]]) -> Any:
    import wandb

    columns = list(dict.fromkeys(name for row in rows for name in row))
    return wandb.Table(columns=[*columns], data=[[_column_value(row.get(name)) for name in columns] for row in rows])


def _column_value(value: Any) -> Any:
    """Writes nested values as JSON, because wandb takes the type of a column from its first row."""
    return json.dumps(value) if isinstance(value, dict | list) else value


def _flat_summary(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat_summary(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
