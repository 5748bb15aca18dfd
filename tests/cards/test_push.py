"""`erulab push` by the hub's own client, against a server on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from erulab.cards.asked import Asked
from erulab.cards.audit import Done, Weights, audit
from erulab.cards.files import uploads
from erulab.commands.push import main
from erulab.errors import DataError
from erulab.reporting.load import load_run
from erulab.rundir import RunDir
from tests.cards.hub_server import Hub, serving
from tests.reporting.conftest import SAMPLES, SCORES, MakeRun, make_run  # noqa: F401

TOKEN = "hf_" + "t0ken" * 6
SECRET_ROW = "Where was Bela Ronu born?"

Push = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub(token=TOKEN)) as server:
        yield server


@pytest.fixture
def push(hub: Hub, tmp_path: Path) -> Push:
    """The command as a user types it, in a process of its own, with this token and hub."""

    def run(*arguments: str, typed: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        outside = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment = {**outside, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf")}
        return subprocess.run(
            [sys.executable, "-m", "erulab", "push", *arguments],
            env={**environment, **variables},
            input=typed,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def finished(make_run: MakeRun) -> Callable[..., Path]:  # noqa: F811
    """A finished run with a model of its own, an audit, and a sample that must not leave it."""

    def make(**changes: Any) -> Path:
        folder = make_run(**changes)
        model = folder / "model"
        model.mkdir()
        (model / "config.json").write_text('{"model_type": "llama"}')
        save_file({"weight": numpy.arange(6.0).reshape(2, 3)}, model / "model.safetensors")
        files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in model.iterdir()}
        request = Asked("", 1, 1, "fictitious", "c" * 64, [("a/1", "d" * 64)], 1)
        done = Done(Weights("target", "k1", {}), Weights("unlearned", "k2", files), {"git": "a" * 40}, 2.5)
        RunDir(folder).write_json(folder / "audit.json", audit(load_run(folder), request, done))
        return folder

    return make


def test_push_writes_model_card_and_figures_in_one_commit_and_no_text_of_a_row(
    push: Push, finished: Callable[..., Path], hub: Hub
) -> None:
    folder = finished(config={"dataset.path": "/home/alice/secret/rows.jsonl"})
    pushed = push(str(folder), "me/mine", "--private", "--yes")
    assert pushed.returncode == 0, pushed.stderr
    assert sorted(hub.files) == ["README.md", "attacks.json", "config.json", "model.safetensors", "scores.json"]
    for name in ("config.json", "model.safetensors"):
        assert hub.files[name] == (folder / "model" / name).read_bytes()
    assert json.loads(hub.files["scores.json"]) == json.loads((folder / "scores.json").read_text())
    assert hub.commits == 1 and hub.private is True
    sent = b"".join(content for name, content in hub.files.items() if name != "model.safetensors").decode()
    assert SECRET_ROW not in sent and SAMPLES[0]["reference"] not in sent and "alice" not in sent
    assert TOKEN not in sent + pushed.stdout + pushed.stderr


def test_a_dry_run_needs_no_hub_and_no_token(push: Push, finished: Callable[..., Path], hub: Hub) -> None:
    folder = finished()
    shown = push(str(folder), "me/mine", "--dry-run", HF_TOKEN="", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert shown.returncode == 0, shown.stderr
    size = (folder / "model" / "model.safetensors").stat().st_size
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("model.safetensors")]
    assert line.split() == ["model.safetensors", str(size), "B"]
    assert "nothing was uploaded" in shown.stdout and not hub.files


@pytest.mark.parametrize(
    ("typed", "variables", "code", "line"),
    [
        ((), {"HF_TOKEN": ""}, 4, "no token is set for the hub; type hf auth login, or set HF_TOKEN"),
        ((), {"HF_HUB_OFFLINE": "1"}, 4, "HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it"),
        ((), {"HF_ENDPOINT": "http://127.0.0.1:9"}, 4, "the hub cannot be reached"),
        ((), {"HF_TOKEN": "hf_" + "wr0ng" * 6}, 4, "the hub refuses to write me/mine (HTTP 401)"),
        (("no/such/name",), {}, 2, "REPO must be OWNER/NAME"),
    ],
    ids=["no token", "offline", "no network", "refused", "name"],
)
def test_what_the_hub_lacks_is_one_line(
    typed: tuple[str, ...],
    variables: dict[str, str],
    code: int,
    line: str,
    push: Push,
    finished: Callable[..., Path],
) -> None:
    failed = push(str(finished()), *(typed or ("me/mine",)), "--yes", **variables)
    assert failed.returncode == code and failed.stderr.startswith(line), failed.stderr
    assert failed.stderr.count("\n") == 1
    assert "hf_" not in failed.stdout + failed.stderr


def test_a_public_repository_is_not_taken_for_a_private_one(
    push: Push, finished: Callable[..., Path], hub: Hub
) -> None:
    hub.private = False
    refused = push(str(finished()), "me/mine", "--private", "--yes")
    assert refused.returncode == 2 and "me/mine is there and is public" in refused.stderr and not hub.files


def test_weights_of_another_model_are_not_left_beside_these(
    push: Push, finished: Callable[..., Path], hub: Hub
) -> None:
    """Libraries load model.safetensors.index.json or other shards as well as the file that is uploaded."""
    hub.private, hub.files = False, {"model-00001-of-00002.safetensors": b""}
    refused = push(str(finished()), "me/mine", "--yes")
    assert refused.returncode == 6 and "holds other weights (model-00001-of-00002.safetensors)" in refused.stderr


def test_nobody_is_asked_twice_and_no_answer_is_no(push: Push, finished: Callable[..., Path], hub: Hub) -> None:
    folder = finished()
    assert push(str(folder), "me/mine", typed="\n").returncode == 0 and not hub.files
    assert push(str(folder), "me/mine").returncode == 2 and not hub.files
    assert push(str(folder), "me/mine", typed="y\n").returncode == 0 and hub.commits == 1


COLLAPSED = {**SCORES, "unlearned": {**SCORES["unlearned"], "retain_unrehearsed/exact_match": 0.2}}


@pytest.mark.parametrize(
    ("changes", "damage", "code", "line"),
    [
        ({"exit": {"code": 75, "message": "", "rank": 0}}, None, 3, "is not finished (it was stopped or has failed)"),
        ({"stages": {"target": {"done": True}}}, None, 3, "(oracle, unlearn, evaluate, attack, report is missing)"),
        ({}, "model/model.safetensors", 6, "model.safetensors is damaged (its SHA-256 is another)"),
        ({}, "scores.json", 6, "scores.json"),
        ({}, "audit.json", 6, "audit.json"),
        ({"config": {"dataset.name": "jsonl"}}, None, 3, "whose tokenizer holds the words of the forget set"),
        ({"config": {"stages": []}}, "", 3, "has no audit.json"),
        ({"scores": COLLAPSED}, None, 2, "the model has COLLAPSED"),
    ],
    ids=["stopped", "unfinished", "weights", "scores", "audit", "words", "no audit", "collapsed"],
)
def test_a_run_that_should_not_be_shared_is_refused(
    changes: dict[str, Any],
    damage: str | None,
    code: int,
    line: str,
    finished: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before the hub is asked: these tests have none."""
    folder = finished(**changes)
    if damage == "":
        (folder / "audit.json").unlink()
    elif damage is not None:
        file = folder / damage
        file.write_bytes(file.read_bytes()[:-20] + b"x" * 20)
    assert main([str(folder), "me/mine", "--yes"]) == code
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1


def test_an_adapter_goes_to_the_hub_with_its_base_by_name_or_not_at_all(finished: Callable[..., Path]) -> None:
    """peft writes the folder of the target into adapter_config.json: it is on no other machine."""
    config = {"model.target": "org/knows-too-much", "artifacts": {"model": "adapter"}}
    folder = finished(config=config)
    adapter, kept = folder / "adapter", {"r": 2, "base_model_name_or_path": "/home/alice/.cache/learned/model"}
    (folder / "model").rename(adapter)
    (adapter / "config.json").rename(adapter / "adapter_config.json")
    (adapter / "adapter_config.json").write_text(json.dumps(kept))
    written = json.loads((folder / "audit.json").read_text())
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in adapter.iterdir()}
    written["done"]["after"]["files"] = {f"adapter/{name}": digest for name, digest in files.items()}
    (folder / "audit.json").write_text(json.dumps(written))
    sent = {file.name: file.content for file in uploads(folder)}
    assert isinstance(sent["adapter_config.json"], bytes) and isinstance(sent["README.md"], bytes)
    assert json.loads(sent["adapter_config.json"]) == {"r": 2, "base_model_name_or_path": "org/knows-too-much"}
    assert b"library_name: peft" in sent["README.md"] and b"base_model: org/knows-too-much" in sent["README.md"]

    settings = (folder / "run.yaml").read_text().replace("target: org/knows-too-much", "target: null")
    (folder / "run.yaml").write_text(settings)
    with pytest.raises(DataError, match="adapters for a target that was learned here.*artifacts.model=full"):
        uploads(folder)
