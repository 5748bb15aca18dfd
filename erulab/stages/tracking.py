"""Where a run's figures go while it runs: metrics.jsonl always, wandb beside it. Rank 0 only.

Nothing here can fail a run: wandb gets one warning and is then left alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import netrc
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from erulab.options import RunConfig, TrackerName, TrackerOptions
from erulab.redaction import redacted
from erulab.rundir import RunDir

if TYPE_CHECKING:
    from erulab.ranks import Ranks

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10  # wandb may keep a run waiting this long at its start
UPLOAD_SECONDS = 60  # and this long at its end
STAGE = "unlearn"  # the one whose steps metrics.jsonl holds


class Tracker:
    """Writes RUN_DIR/metrics.jsonl and mirrors it to wandb; does nothing on ranks other than the first."""

    def __init__(self, rundir: RunDir, config: RunConfig, ranks: Ranks) -> None:
        self._rundir, self._config, self._first = rundir, config, ranks.first
        self._started = False
        self._request, self._first_step = "", 0
        self._wandb: _Wandb | None = None
        if self._first and config.tracker.name is TrackerName.wandb:
            self._wandb = _Wandb(rundir, config)

    def begin(self, request: str, first_step: int) -> None:
        """What is logged from here on is of one of several requests: its steps go on from `first_step`."""
        self._request, self._first_step, self._started = request, first_step, False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one unlearning step to metrics.jsonl.

        The first step of a process drops lines from that step on: a resumed run repeats steps after its checkpoint.
        """
        if not self._first:
            return
        step += self._first_step
        if not self._started:
            self._write(self._before(step))
            self._started = True
        line = {"step": step, **{k: _finite(v) for k, v in values.items()}, "stage": STAGE, "time": time.time()}
        if self._request:
            line["request"] = self._request
        with self._rundir.metrics_jsonl.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        self._mirror({"step": step, **values})

    def log_stage(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """A step of learning target or oracle: to wandb only, as `<stage>/<name>`; metrics.jsonl is unlearning's."""
        self._mirror({f"{stage}/{name}": value for name, value in {"step": step, **values}.items()})

    def resume(self, metrics: Path) -> list[str]:
        """Takes over the lines that an unlearning's product has so far: of the run that began it, maybe elsewhere.

        Returns them, or nothing where all were there.
        """
        if not self._first or not metrics.is_file():
            return []
        text = metrics.read_text(encoding="utf-8")
        found = [self._moved(line, self._first_step, self._request) for line in text.splitlines()]
        known, last = self._lines(), max(map(_step_of, found), default=-1.0)
        lines = [*self._before(self._first_step), *found, *(line for line in known if last < _step_of(line) < math.inf)]
        if lines == known:
            return []
        self._write(lines)
        return found

    def replay(self, metrics: Path) -> None:
        """Takes over the metrics.jsonl of an unlearning that was found in the cache."""
        for line in self.resume(metrics):  # nothing in a second run in this folder: the first sent them
            self._mirror({name: value for name, value in json.loads(line).items() if isinstance(value, int | float)})

    def keep(self, metrics: Path) -> None:
        """Writes the lines so far of this request's unlearning beside its checkpoints, as those of one by itself."""
        if self._first and self._rundir.metrics_jsonl.is_file():
            own = [line for line in self._lines() if self._first_step <= _step_of(line) < math.inf]
            moved = [self._moved(line, -self._first_step, "") for line in own]
            metrics.write_text("".join(f"{line}\n" for line in moved), encoding="utf-8")

    def summary(self, values: Mapping[str, Any]) -> None:
        """Final figures, nested or flat; nested names are joined by `/`."""
        if self._wandb is not None:
            self._wandb.summary(_flat(values))

    def finish(self) -> str | None:
        """Sends attacks, plots and, where allowed, samples. Prints and returns the line that uploads an offline run."""
        if self._wandb is None:
            return None
        line = self._wandb.finish(self._config.tracker)
        if line is not None:
            print(f"to upload: {line}", flush=True)
        return line

    def _mirror(self, values: dict[str, Any]) -> None:
        if self._wandb is not None:
            self._wandb.log(values)

    def _lines(self) -> list[str]:
        file = self._rundir.metrics_jsonl
        return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []

    def _before(self, step: int) -> list[str]:
        return [line for line in self._lines() if _step_of(line) < step]

    def _write(self, lines: list[str]) -> None:
        self._rundir.write_text(self._rundir.metrics_jsonl, "".join(f"{line}\n" for line in lines))

    def _moved(self, line: str, steps: int, request: str) -> str:
        """The line with its step so much later, and with the request's name."""
        if not self._request:
            return line
        row = json.loads(line)
        row = {name: value for name, value in row.items() if name != "request"} | {"step": row["step"] + steps}
        return json.dumps(row | ({"request": request} if request else {}), allow_nan=False)


class _Wandb:
    """The only code that knows wandb. After its first failure it does nothing more."""

    def __init__(self, rundir: RunDir, config: RunConfig) -> None:
        self._rundir = rundir
        self._run: Any = None
        self._folder: Path | None = None
        self._offline = False
        tracker = config.tracker
        # Set before the import: wandb prints where it found a key even when told to be silent.
        os.environ.setdefault("WANDB_SILENT", "true")
        # wandb's reports on itself hold up the end of a process for 20 s where the network swallows them.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        if not self._start(mode, tracker, config) and mode == "online":
            self._release()
            self._start("offline", tracker, config)

    def log(self, values: dict[str, Any]) -> None:
        self._try(lambda run: run.log(values))

    def summary(self, values: Mapping[str, Any]) -> None:
        self._try(lambda run: run.summary.update(dict(values)))

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
                # Git remotes and code can hold what must not leave the machine.
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
            for stage in ("target", "oracle"):
                self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._offline = bool(self._run.offline)
            self._folder = Path(self._run.dir).parent
        except Exception as error:
            self._give_up(error, "; metrics go on in metrics.jsonl and offline" if mode == "online" else "")
            return False
        return True

    def _release(self) -> None:
        """Ends wandb's service: it holds files, and the id of a run that could not start."""
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
            # What reached the folder before the failure can still be uploaded.
            self._offline = True
            self._give_up(error, "; metrics go on in metrics.jsonl")

    def _give_up(self, error: Exception, consequence: str) -> None:
        self._run = None
        reason = (str(error).splitlines() or [""])[0]
        log.warning("wandb: %s: %s%s", type(error).__name__, redacted(reason), consequence)

    def _send_results(self, run: Any) -> None:
        import wandb

        if self._rundir.attacks_json.is_file():
            run.log({"attacks": _table(self._read(self._rundir.attacks_json))})
        if self._rundir.plots.is_dir():
            run.log({f"plots/{p.stem}": wandb.Image(str(p)) for p in sorted(self._rundir.plots.glob("*.png"))})

    def _send_samples(self, run: Any) -> None:
        if self._rundir.samples_json.is_file():
            run.log({"samples": _table(self._read(self._rundir.samples_json))})

    def _read(self, file: Path) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        return rows


def run_id(rundir: RunDir) -> str:
    """wandb's id of the run: its folder's name, and a hash of host and path.

    The same folder continues its wandb run; the same settings elsewhere are another one, whose curves must not mix.
    """
    name = re.sub(r"[^\w-]", "-", rundir.path.name)[:80]
    place = f"{socket.gethostname()}:{rundir.path.resolve()}"
    return f"{name}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def plain_config(config: RunConfig) -> dict[str, Any]:
    """The config as JSON-like values, secrets redacted."""
    plain: dict[str, Any] = redacted(_plain(dataclasses.asdict(config)))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _has_key() -> bool:
    """Whether wandb could log in without asking."""
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


def _table(rows: list[dict[str, Any]]) -> Any:
    import wandb

    columns = list(dict.fromkeys(name for row in rows for name in row))
    return wandb.Table(columns=[*columns], data=[[_cell(row.get(name)) for name in columns] for row in rows])


def _cell(value: Any) -> Any:
    """What is nested as JSON: wandb gives a column the type of its first row, and refuses objects with other keys."""
    return json.dumps(value) if isinstance(value, dict | list) else value


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf  # cut short by a crash: dropped


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
