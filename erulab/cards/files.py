"""The files of a run folder that a hub repository gets: model, card and figures; never a file that holds texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erulab.cards.base import hub_id, without_folders
from erulab.cards.model_card import model_card
from erulab.checksums import find_fault
from erulab.errors import DataError, IntegrityFault
from erulab.options import SavedModel
from erulab.reporting.load import RunResult, load_run
from erulab.reporting.read_results import read_json
from erulab.reporting.shapes import anything, count, dict_of, list_of, record, text, text_or_null
from erulab.rundir import CARD, RunDir

ADAPTER = "adapter"  # what the audit calls the folder of LoRA adapters
# Written by peft with the folder of the model under the adapters.
ADAPTER_CONFIG, BASE_KEY = "adapter_config.json", "base_model_name_or_path"

# What is read of an audit.
AUDIT = record(
    {
        "asked": record(
            {
                "request": text,
                "number": count,
                "dataset": record({"name": text, "sha256": text}),
                "forget": record({"rows": count, "sha256": text}),
            }
        ),
        "done": record({"after": record({"files": dict_of(text)})}),
        "by": record({}, {"erulab": text_or_null, "git": text_or_null}),
        "limits": list_of(text),
    }
)


@dataclass(frozen=True)
class Upload:
    """One file of the repository: a file on disk, or bytes that are made for it."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def saved_folder(rundir: RunDir, saved: SavedModel) -> Path | None:
    """Returns the folder that `artifacts.model` names; None if nothing is saved."""
    return {SavedModel.adapter: rundir.adapter, SavedModel.none: None}.get(saved, rundir.model)


def read_audits(rundir: RunDir) -> list[dict[str, Any]]:
    """Returns the audits of a run folder in the order of the requests.

    Raises:
        IntegrityFault: one of them is damaged.
    """
    found: list[dict[str, Any]] = [read_json(file, AUDIT) for file in rundir.audits]
    return sorted(found, key=lambda audit: int(audit["asked"]["number"]))


def uploads(folder: Path) -> list[Upload]:
    """Returns the files of a finished run that a repository gets, the card first.

    Raises:
        DataError: the folder is no run, the run is not finished, or it holds no model that can be shared.
        IntegrityFault: a file was changed since it was written.
    """
    rundir = RunDir(folder)
    run = load_run(folder)
    _check_finished(run)
    saved = SavedModel((run.config.get("artifacts") or {}).get("model") or SavedModel.full.value)
    model = saved_folder(rundir, saved)
    if run.checkpoint or model is None or not model.is_dir():
        why = "it only scored a given checkpoint" if run.checkpoint else "artifacts.model=none keeps none"
        raise DataError(f"{folder} holds no model to upload ({why}); type the run's command with artifacts.model=full")
    if run.choice("model") == "tiny" and run.choice("dataset") != "fictitious":
        raise DataError(
            f"{folder} has model=tiny, whose tokenizer holds the words of the forget set; to upload a model that has "
            "forgotten rows of yours, start from a published one (model=hf model.path=OWNER/NAME)"
        )
    audits = read_audits(rundir)
    if audits:
        _check_files(model, audits[-1], adapter=saved is SavedModel.adapter)
    elif run.choice("method") != "none":  # the target, for which nothing was asked
        raise DataError(f"{folder} has no audit.json; type the run's command again, with report among its stages")
    card = model_card(run, audits, adapter=saved is SavedModel.adapter)
    of_model = [_model_upload(file, run) for file in sorted(model.iterdir()) if file.is_file() and file.name != CARD]
    figures = [
        Upload(file.name, _shared_json(file))
        for file in (rundir.scores_json, rundir.intervals_json, rundir.attacks_json)
        if file.is_file()
    ]
    return [Upload(CARD, card.encode()), *of_model, *figures]


def _check_finished(run: RunResult) -> None:
    """Raises an error for a run whose folder does not yet hold, or no longer holds, all that its command makes."""
    if run.damaged:
        raise IntegrityFault("; ".join(run.damaged))
    ended = run.ended.get("code")
    if ended == 0 and not run.missing:
        return
    what = f"{', '.join(run.missing)} is missing" if run.missing else "it was stopped or has failed"
    command = f": {run.env['command']}" if run.env.get("command") else ""
    raise DataError(f"{run.path} is not finished ({what}); type its command again{command}")


def _check_files(model: Path, audit: Mapping[str, Any], *, adapter: bool) -> None:
    """Compares the files of the model with what they were when it was made.

    Raises:
        IntegrityFault: one was changed, is missing, or is not of the model.
    """
    prefix = f"{ADAPTER}/"
    files: Mapping[str, str] = audit["done"]["after"]["files"]
    wanted = {name.removeprefix(prefix): digest for name, digest in files.items() if name.startswith(prefix) is adapter}
    fault = find_fault(model, wanted, without=(CARD,))
    if fault is not None:
        raise IntegrityFault(f"{model}/{fault}; remove {model} and type the run's command again")


def _model_upload(file: Path, run: RunResult) -> Upload:
    """Returns a file of the model; an adapter names its base by hub id in place of a folder of this machine.

    Raises:
        DataError: the adapter belongs on a model that is on this machine alone.
    """
    if file.name != ADAPTER_CONFIG:
        return Upload(file.name, file)
    target = hub_id((run.config.get("model") or {}).get("target"))
    if target is None:
        raise DataError(
            f"{file.parent} holds adapters for a target that was learned here and is on no hub; to upload the whole "
            "model, type the run's command with artifacts.model=full"
        )
    content = {**json.loads(file.read_text(encoding="utf-8")), BASE_KEY: target}
    return Upload(file.name, json.dumps(content, indent=2).encode())


def _shared_json(file: Path) -> bytes:
    content = read_json(file, anything)
    return (json.dumps(without_folders(content), indent=1, ensure_ascii=False) + "\n").encode()
