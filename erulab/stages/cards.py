"""The audits and the model card of a run, written at its end from what the run folder then holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from erulab.cards.asked import Asked, hash_row
from erulab.cards.audit import Done, Weights, audit, differ
from erulab.cards.files import ADAPTER, read_audits, saved_folder
from erulab.cards.model_card import model_card
from erulab.checksums import ENTRY, hash_file, hash_json
from erulab.data.rows import Request
from erulab.errors import IntegrityFault
from erulab.models.folders import CHECKPOINT_FILES, local_folder
from erulab.options import SavedModel
from erulab.redaction import redacted_text
from erulab.reporting.load import load_run
from erulab.rundir import CARD, RunDir
from erulab.stages.context import Context
from erulab.stages.unlearn import UNLEARNED, UnlearnedRequest
from erulab.training.loader import ModelRef


def write_audits(
    context: Context, rundir: RunDir, models: Mapping[str, ModelRef], done: Sequence[UnlearnedRequest]
) -> None:
    """Writes what each request asked for and what was done; a file that would say the same as before is left alone.

    Args:
        models: role -> model, of the whole run.
        done: the requests that were unlearned; empty with method=retrain, whose unlearned model is the oracle.
    """
    run = load_run(rundir.path)
    raw = context.data.raw
    requests = raw.requests or (Request("", raw.forget),)
    roles = [one.role for one in done] or [UNLEARNED]
    fitted = [one.forget for one in done] or [context.benchmark.forget]
    # As plain JSON, because an identity may hold enumerations.
    content = hash_json(json.loads(json.dumps(context.data.identity, default=str)))
    before = "target"
    for number, (request, role, rows) in enumerate(zip(requests, roles, fitted, strict=False), 1):
        asked = Asked(
            request=request.name,
            number=number,
            count=len(requests),
            dataset=raw.name,
            content=content,
            rows=[(row.id, hash_row(row)) for row in request.forget],
            trained_on=len(rows),
        )
        start = before if request.continues else "target"
        entry = _read_entry(models[role])
        done_for_it = Done(
            before=_weights(start, models[start]) if start in models else None,
            after=_weights(role, models[role]),
            made=entry.get("made_by", {}),
            seconds=entry.get("costs", {}).get("seconds"),
        )
        file = rundir.audit_json(request.name if len(requests) > 1 else "")
        _write_if_changed(rundir, file, audit(run, asked, done_for_it))
        before = role


def write_card(rundir: RunDir, saved: SavedModel) -> None:
    """Writes the card of the model, or of the adapters, that the run folder holds; nothing if it holds none."""
    folder = saved_folder(rundir, saved)
    if folder is not None and folder.is_dir():
        card = model_card(load_run(rundir.path), read_audits(rundir), adapter=saved is SavedModel.adapter)
        rundir.write_text(folder / CARD, card)


def _weights(role: str, ref: ModelRef) -> Weights:
    """Returns a model with the hashes of its files, and of its adapters where it has some.

    Those of a model that erulab made stand in the cache's entry; a given one is read, once per process.
    """
    made: dict[str, str] = _read_entry(ref).get("files", {})
    if made:
        model = f"{Path(ref.path).name}/"
        kept = [name for name in made if name.startswith((model, f"{ADAPTER}/")) and _is_of_checkpoint(name)]
        return Weights(role, ref.key, {name.removeprefix(model): made[name] for name in kept})
    folder = local_folder(ref.path)
    files = sorted(file for file in folder.iterdir() if file.is_file() and _is_of_checkpoint(file.name))
    return Weights(role, ref.key, {file.name: hash_file(file) for file in files})


def _is_of_checkpoint(name: str) -> bool:
    return any(PurePath(name).match(pattern) for pattern in CHECKPOINT_FILES)


def _read_entry(ref: ModelRef) -> dict[str, Any]:
    """Returns what the cache says of a model that erulab made; empty for a given one."""
    file = Path(ref.path).parent / ENTRY
    if not file.is_file():
        return {}
    entry: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return entry if entry["key"] == ref.key else {}


def _write_if_changed(rundir: RunDir, file: Path, content: dict[str, Any]) -> None:
    plain = json.loads(redacted_text(json.dumps(content, default=str), commits=True))
    try:
        before = rundir.read_json(file) if file.is_file() else None
    except IntegrityFault:
        before = None
    # A damaged file is written anew.
    if not isinstance(before, dict) or differ(before, plain):
        rundir.write_json(file, plain)
