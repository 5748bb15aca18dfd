"""`erulab doctor`: what is missing is found and its fix named; secrets are never printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from erulab.commands import doctor, machine_findings

SECRETS = {"HF_TOKEN": "hf_" + "q" * 30, "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567"}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("WANDB_MODE", raising=False)


def found(capsys: pytest.CaptureFixture[str], *overrides: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code = doctor.main(["--json", *overrides])
    return code, {one["what"]: one for one in json.loads(capsys.readouterr().out)}


def test_this_machine_runs_the_tests(capsys: pytest.CaptureFixture[str]) -> None:
    code, one = found(capsys)
    assert code == 0
    assert one["python"]["health"] == "ok" and one["packages"]["health"] == "ok"
    assert one["hub"]["health"] == "note" and "HF_HUB_OFFLINE" in one["hub"]["found"]
    assert doctor.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 missing, ")


def test_secrets_are_told_of_and_never_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 27."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    _, one = found(capsys)
    assert "a token is set" in one["hub"]["found"] and one["wandb"]["health"] == "ok"
    for arguments in ([], ["--json"]):
        doctor.main(arguments)
        printed = capsys.readouterr()
        assert not [value for value in SECRETS.values() if value in printed.out + printed.err]


def test_packages_that_are_missing_or_old(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def wanted() -> Iterator[Requirement]:
        yield from map(Requirement, ("no-such-package>=2", "numpy>=1000", "psutil"))

    monkeypatch.setattr(machine_findings, "_requirements", wanted)
    code, one = found(capsys)
    assert code == 4
    assert one["no-such-package"]["fix"] == "pip install 'no-such-package>=2'"
    assert "erulab requires >=1000" in one["numpy"]["found"] and one["packages"]["found"].startswith("1 of 3 ")


def test_a_machine_without_compiler_and_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine_findings, "free_bytes", lambda path: 1e6)
    code, one = found(capsys)
    assert code == 0  # one process on this disk can still run something small
    assert one["compiler"]["health"] == "note" and "apt install g++" in one["compiler"]["found"]
    assert one["disk for output"]["health"] == "note" and "1.0 MB" in one["disk for output"]["found"]


def test_files_of_a_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """All that is missing is told at once, where the run would end at the first."""
    forget = tmp_path / "forget.jsonl"
    forget.write_text('{"prompt": "a", "response": "b"}\n')
    code, one = found(
        capsys,
        *("dataset=jsonl", f"dataset.forget={forget}", f"dataset.retain={tmp_path}/retain.jsonl"),
        *("model=hf", "model.path=owner/name", f"output={forget}/below"),
    )
    assert code == 4
    assert one["dataset.forget"]["health"] == "ok" and "33 B" in one["dataset.forget"]["found"]
    assert one["dataset=jsonl"]["health"] == "missing" and "retain.jsonl" in one["dataset=jsonl"]["found"]
    assert one["model.path"]["health"] == "missing"
    assert one["model.path"]["fix"].endswith("hf download owner/name --repo-type model")
    assert one["disk for output"]["fix"] == "name a folder with output=FOLDER"


@pytest.mark.parametrize("override", ["dataset=tofux", "method.betta=1", "method", "seed=0,1", "method.beta=-1"])
def test_a_command_line_that_does_not_compose(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["method=npo", override]) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1 and not printed.out
