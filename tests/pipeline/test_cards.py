"""Model card and audit of whole runs: hashes computed anew, models left alone, repeats that change nothing."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.training.checkpoints import Checkpoints
from tests.pipeline.conftest import Finished, Runner, finished, run_beside, small


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def front_matter(card: Path) -> dict[str, Any]:
    _, front, _ = card.read_text().split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(front)
    return found


def test_the_audit_names_rows_and_weights_by_their_hashes(first: Finished) -> None:
    """Every hash is computed here from the rows and the files, in the way that the page describes."""
    audit = first.read("audit.json")
    config = yaml.safe_load(first.rundir.run_yaml.read_text())
    rows = FictitiousWorld(FictitiousOptions(**config["dataset"])).load(0).forget
    wanted = [sha256(json.dumps([row.prompt, row.response], ensure_ascii=False).encode()) for row in rows]
    forget = audit["asked"]["forget"]
    assert forget["hashes"] == [{"id": row.id, "sha256": one} for row, one in zip(rows, wanted, strict=True)]
    assert forget["sha256"] == sha256("\n".join(wanted).encode())
    assert forget["rows"] == forget["trained_on"] == len(rows)

    stages, cache = first.read("stages.json"), Path(config["cache"])
    for part, kind, stage in (("before", "learned", "target"), ("after", "unlearned", "unlearn")):
        model = audit["done"][part]
        folder = first.rundir.path.parents[1] / ".cache" / kind / stages[stage]["key"] / "model"
        assert model["key"] == stages[stage]["key"]
        assert model["files"] == {file.name: sha256(file.read_bytes()) for file in folder.iterdir()}, cache
    assert audit["done"]["settings"]["method"] == config["method"]
    assert audit["done"]["settings"]["seed"] == config["seed"]
    assert audit["when"]["began"] <= audit["when"]["ended"] and audit["when"]["began"].endswith("+00:00")

    texts = {text for row in rows for text in (row.prompt, row.response, row.value)}
    said = (first.rundir.path / "audit.json").read_text() + (first.rundir.model / "README.md").read_text()
    assert not [text for text in texts if text in said]


def test_the_audit_has_the_figures_of_the_run(first: Finished) -> None:
    audit, scores, intervals = first.read("audit.json"), first.read("scores.json"), first.read("intervals.json")
    choice = audit["figures"]["forget/choice"]
    for when, role in (("before", "target"), ("after", "unlearned"), ("oracle", "oracle")):
        assert choice[when] == {
            "value": scores[role]["forget/choice"],
            "interval": intervals[role]["forget/choice"],
            "rows": scores[role]["forget/n"],
        }
    assert audit["verdict"]["knowledge_left"]["value"] == scores["unlearned"]["knowledge_left"]
    headlines = [row for row in first.read("attacks.json") if row["headline"]]
    assert [one["attack"] for one in audit["attacks"]] == list(dict.fromkeys(row["attack"] for row in headlines))
    assert audit["verdict"]["sentences"][0] in first.rundir.report_md.read_text().replace("\\", "")


def test_the_card_is_in_the_run_folder_alone(first: Finished, run: Runner) -> None:
    """A card that was edited, or is missing, makes no model count as changed; a repeat writes nothing but the card."""
    card, audit = first.rundir.model / "README.md", first.rundir.path / "audit.json"
    assert front_matter(card)["library_name"] == "transformers"
    assert not list((first.rundir.path.parents[1] / ".cache").glob("*/*/model/README.md"))
    written, before = card.read_text(), audit.stat()
    card.write_text("mine")
    again = run("attack=[relearn,quantize]", "report.margin=0.1")
    assert again.code == 0 and all(again.from_cache.values())
    assert card.read_text() == written and not first.rundir.model.with_name("model.changed").exists()
    assert audit.stat().st_mtime_ns == before.st_mtime_ns


def test_another_attack_is_added_to_card_and_audit(copy_first: Callable[[Path], Finished], tmp_path: Path) -> None:
    first = copy_first(tmp_path / "outputs")  # its card changes
    when = first.read("audit.json")["when"]
    again = run_beside(first)("attack=[relearn,quantize,prune]")
    audit = again.read("audit.json")
    assert audit["when"] == when  # of the unlearning, which the cache had
    assert "prune" in {one["attack"] for one in audit["attacks"]}
    assert "| prune |" in (again.rundir.model / "README.md").read_text()


def test_retraining_is_audited_and_doing_nothing_is_not(first: Finished, run: Runner) -> None:
    retrained = run("method=retrain", "attack=none")
    files = retrained.read("audit.json")["done"]["after"]["files"]
    assert files["model.safetensors"] == sha256((retrained.rundir.model / "model.safetensors").read_bytes())
    nothing = run("method=none", "attack=none")
    assert not nothing.rundir.audits and "not unlearned" in (nothing.rundir.model / "README.md").read_text()


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


MODES = (
    "stages=[target,unlearn,evaluate,report]",
    "attack=none",
    "evaluation.generate=false",
    "evaluation.uds=false",
    "target.epochs=1",
    "trainer.steps=2",
    "trainer.save_every=1",
    "model.lora.rank=2",
)


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077], indirect=True, ids=oct)
def test_files_have_the_modes_that_the_umask_gives(umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints, which the run removes, are looked at as soon as they are written."""
    output, modes, save = tmp_path / "outputs", dict[Path, int](), Checkpoints.save

    def look() -> None:
        modes.update({path: stat.S_IMODE(path.stat().st_mode) for path in output.rglob("*")})

    def save_and_look(*arguments: Any) -> None:
        save(*arguments)
        look()

    monkeypatch.setattr(Checkpoints, "save", save_and_look)
    assert finished([*small(MODES), f"output={output}"]).code == 0
    look()
    kinds = {".safetensors", ".json", ".md", ".html", ".jsonl", ".log", ".yaml", ".png"}
    assert kinds <= {path.suffix for path in modes}
    assert [path for path in modes if "checkpoints" in path.parts and path.name == "objective.safetensors"]
    wrong = {str(path): oct(mode) for path, mode in modes.items() if mode != _usual(path, modes) & ~umask}
    assert not wrong


def _usual(path: Path, found: dict[Path, int]) -> int:
    """Returns the mode that a new file or folder has without an umask."""
    return 0o777 if any(other.parent == path for other in found) or path.is_dir() else 0o666
