"""altpo as a run: alternatives are generated once, cached under the target, shown in the report, sent nowhere."""

from __future__ import annotations

import json
from pathlib import Path

from tests.pipeline.conftest import Finished, Runner

ALTPO = ("method=altpo", "method.alternatives=2", "method.max_new_tokens=12", "attack=none")


def entries(first: Finished, kind: str) -> list[Path]:
    return sorted((first.rundir.path.parents[1] / ".cache" / kind).glob("*/entry.json"))


def test_alternatives_are_made_once_per_target_and_shown(run: Runner, first: Finished) -> None:
    done = run(*ALTPO)
    assert done.code == 0
    shown = done.read("alternatives.json")
    assert len(shown) == 5
    for sample in shown:
        assert len(sample["alternatives"]) == 2 and sample["reference"] not in sample["alternatives"]
    (entry,) = entries(first, "alternatives")
    made = json.loads(entry.read_text())
    texts = json.loads((entry.parent / "alternatives.json").read_text())
    assert list(texts.values())[0] == shown[0]["alternatives"]
    for name in ("report.md", "report.html"):
        report = (done.rundir.path / name).read_text()
        assert "Alternatives that the target gave" in report
    # The costs of generating them are part of the costs of unlearning.
    key = done.read("stages.json")["unlearn"]["key"].split("+")[-1]  # after that of the alternatives
    (folder,) = [file.parent for file in entries(first, "unlearned") if file.parent.name == key]
    unlearned = json.loads((folder / "entry.json").read_text())["costs"]
    total = done.read("scores.json")["unlearned"]["cost/flops"]
    assert made["costs"]["flops"] > 0 and total == made["costs"]["flops"] + unlearned["flops"]
    # Options of training keep them; options of sampling make others.
    assert run(*ALTPO, "method.beta=0.2", "stages=[target,unlearn]").code == 0
    assert len(entries(first, "alternatives")) == 1
    assert run(*ALTPO, "method.temperature=2", "stages=[target,unlearn]").code == 0
    assert len(entries(first, "alternatives")) == 2
    # Without the stage that makes them, what an earlier run unlearned is found.
    again = run(*ALTPO, "stages=[evaluate,report]")
    assert "unlearned" in again.read("scores.json")
