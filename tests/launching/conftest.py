from __future__ import annotations

import json

from erulab.rundir import RunDir
from tests.commands import command, here, worker

__all__ = ["command", "here", "worker"]  # fixtures


def write_results(rundir: RunDir) -> None:
    """Writes what the stages of a finished run leave: figures, attacks, and a model of one weight."""
    rundir.write_json(rundir.scores_json, {"target": {"forget/probability": 0.5}})
    rundir.write_json(rundir.attacks_json, [{"attack": "quantize"}])
    head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    rundir.write_text(rundir.model / "config.json", "{}")
    rundir.write_bytes(rundir.model / "model.safetensors", len(head).to_bytes(8, "little") + head + b"1234")
