"""What a command prints before it runs: choices and changed options, typed out by hand here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from erulab.config.compose import compose_config
from erulab.config.shown_settings import REST, settings_lines
from tests.commands import Answer

FOLDER = Path("outputs/x")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def shown(*commands: str) -> dict[str, str]:
    """Returns label -> text of the lines about the runs of these commands, without the last line."""
    *lines, rest = settings_lines([compose_config(command.split()) for command in commands], FOLDER)
    assert rest.startswith(REST) and ("--cfg job" in rest) == (len(commands) == 1)
    return {line[:11].strip(): line[11:] for line in lines}


def test_the_default_run_takes_a_dozen_lines() -> None:
    assert shown("") == {
        "model": "tiny",
        "dataset": "fictitious",
        "method": "eru",
        "reward": "elastic decay=0.5",
        "adversary": "rfa",
        "trainer": "lr=0.0005 steps=90 global_batch=64",
        "target": "learned unless it is in the cache, seed 0; lr=0.002 epochs=20.0 global_batch=128",
        "oracle": "learned unless it is in the cache, seed 0; with the options of target",
        "attack": "relearn; quantize",
        "evaluation": "uds=true",
        "engine": "auto",
        "tracker": "wandb",
        "seed": "0",
        "folder": "outputs/x",
    }


def test_what_was_typed_stands_beside_its_choice() -> None:
    typed = "method=npo method.beta=0.2 attack=relearn attack.relearn.samples=[10,100] model.lora.rank=8"
    lines = shown(f"{typed} target.oracle_seeds=3 target.seed=5 artifacts.private=true rerun=true seed=7 tracker=none")
    assert (lines["method"], lines["reward"]) == ("npo beta=0.2", "reference") and "adversary" not in lines
    assert lines["attack"] == "relearn samples=[10,100]"
    assert lines["model"] == "tiny lora.rank=8"
    assert lines["oracle"].startswith("learned unless it is in the cache, seeds 5 to 7;")
    assert (lines["artifacts"], lines["run"], lines["seed"]) == ("private=true", "rerun=true", "7")
    assert lines["tracker"] == "none"


def test_given_models_are_named_and_unused_options_are_not_shown() -> None:
    models = "model=hf model.unlearned=a/b model.target=c/d model.oracle=[e/f,g/h]"
    lines = shown(f"{models} stages=[evaluate]")
    assert list(lines) == ["model", "dataset", "target", "oracle", "unlearned", "engine", "tracker", "seed", *LAST]
    assert [lines[role] for role in ("target", "oracle", "unlearned")] == [
        "given: c/d",
        "given: e/f, g/h",
        "given: a/b",
    ]


LAST = ("run", "folder")


def test_a_sweep_shows_what_its_jobs_have_in_common() -> None:
    lines = shown("method=npo seed=1", "method=ga seed=1 trainer.lr=1e-4", "method=ga seed=2")
    assert lines["varied"] == "method, reward, trainer, seed"
    assert lines["dataset"] == "fictitious" and "method" not in lines and "seed" not in lines


def test_no_control_character_and_no_secret_reaches_the_terminal() -> None:
    """FAULTS 27 and 29."""
    config = compose_config(["model=hf", "model.path=x"])
    config.model.target = "folder\x1b]0;title\x07"
    config.model.unlearned = "hf_" + "a" * 20
    config.output = "hf_" + "b" * 20
    text = "\n".join(settings_lines([config], FOLDER))
    assert text.replace("\n", "").isprintable() and "folder\\u001b" in text
    assert "aaaa" not in text and "bbbb" not in text and text.count("[redacted]") == 2


def test_the_command_prints_the_lines_and_a_sweep_only_what_differs(
    command: Callable[..., Answer], here: Path, worker: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erulab.launching.job.WORKER", worker("end(0)"))
    one = command("method=npo", "attack=none", "stages=[target]", "output=out")
    assert one.code == 0 and len(one.out.splitlines()) < 16
    assert "trainer    lr=0.0005" in one.out and "folder     out/fictitious/npo-" in one.out
    many = command("-m", "method=npo", "stages=[target]", "seed=0,1", "output=out")
    assert many.code == 0
    assert many.out.count("dataset    fictitious") == 1 and "varied     seed" in many.out
    assert "job 1 of 2: seed=0\n" in many.out and "job 2 of 2: seed=1\n" in many.out
