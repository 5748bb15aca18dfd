"""Reads back what wandb has written offline, without wandb's own reader: a log of protobuf records in blocks."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768  # bytes; a record that does not fit is cut into parts
HEADER = 7  # bytes of the file's header, and of the header of each part: checksum, length, kind
LAST_PARTS = (1, 4)  # a whole record, the last part of one


@dataclass
class Segment:
    """One offline folder, as it would be uploaded."""

    run: Any = None  # the last state of the run: name, tags, notes, group, job type, project
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)  # name -> its definition
    alerts: list[Any] = field(default_factory=list)
    artifacts: dict[str, dict[str, Path]] = field(default_factory=dict)  # type -> path in it -> file
    exit_code: int | None = None


def segments(rundir: Path) -> list[Path]:
    """Returns the offline folders of a run folder, in order of time."""
    return sorted((rundir / "wandb").glob("offline-run-*"))


def read_segment(folder: Path) -> Segment:
    """Returns everything that one offline folder holds."""
    found = Segment()
    (file,) = folder.glob("*.wandb")
    for record in _records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "summary":
            found.summary |= {_key(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "history":
            found.history.append({_key(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "metric":
            found.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "alert":
            found.alerts.append(record.alert)
        elif kind == "artifact":
            contents = record.artifact.manifest.contents
            found.artifacts[record.artifact.type] = {one.path: Path(one.local_path) for one in contents}
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def _key(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


def _records(file: Path) -> Iterator[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # the rest of a block is padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        whole += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in LAST_PARTS:
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record
