"""What the run folder keeps of texts, and who can read it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from erulab.config.compose import compose_config
from erulab.errors import EnvironmentFault
from erulab.launching.folder_key import folder_key
from erulab.options import ArtifactsOptions, ForgetText
from erulab.rundir import make_private
from erulab.stages.kept_texts import kept_texts
from tests.commands import Answer, command, here, worker

__all__ = ["command", "here", "worker"]  # fixtures

SAMPLE = {"suite": "forget", "role": "forget", "prompt": "Where was Bela born?", "reference": "In Kamil.", "oracle": ""}
JUDGED = {"model": "target", "suite": "forget", "id": "3", "fact": "f", "prompt": "p", "answer": None, "log_odds": 0.5}
ALTERNATIVES = {"prompt": "Who?", "reference": "Ada.", "alternatives": ["Bela.", "Ada."]}


def sha(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def test_texts_become_hashes_and_names_stay() -> None:
    options = ArtifactsOptions(forget_text=ForgetText.hash_only)
    sample, judged, alternatives = kept_texts([SAMPLE, {**JUDGED, "verdict": "no"}, ALTERNATIVES], options)
    assert sample == {
        "suite": "forget",
        "role": "forget",
        "prompt": sha("Where was Bela born?"),
        "reference": sha("In Kamil."),
        "oracle": sha(""),
    }
    assert judged == {**JUDGED, "fact": sha("f"), "prompt": sha("p"), "verdict": "no"}
    assert alternatives["alternatives"] == [sha("Bela."), alternatives["reference"]]


def test_by_default_texts_are_kept() -> None:
    assert kept_texts([SAMPLE], ArtifactsOptions()) == [SAMPLE]


def test_neither_option_changes_the_folder(here: Path) -> None:
    keys = {folder_key(compose_config(typed)) for typed in ([], ["artifacts.forget_text=hash_only"], PRIVATE)}
    assert len(keys) == 1


PRIVATE = ["artifacts.private=true"]


def mode(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_private_closes_run_cache_and_sweep(
    command: Callable[..., Answer], here: Path, worker: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erulab.launching.job.WORKER", worker("end(0)"))
    typed = ("method=npo", "attack=none")
    mask = os.umask(0o022)  # under 077 every folder is closed
    try:
        assert command(*typed, "hydra.run.dir=open").code == 0
    finally:
        os.umask(mask)
    assert mode(here / "open") & 0o055
    assert command(*typed, *PRIVATE, "hydra.run.dir=closed").code == 0
    assert mode(here / "closed") == mode(here / "outputs" / ".cache") == 0o700
    assert command("-m", *typed, *PRIVATE, "seed=0,1", "hydra.sweep.dir=sweep").code == 0
    assert mode(here / "sweep") == 0o700


def test_a_folder_that_cannot_be_closed_is_named(tmp_path: Path) -> None:
    """FAULTS 18: the folder is below a file."""
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="cannot close .*artifacts.private=false"):
        make_private(tmp_path / "file" / "cache")
