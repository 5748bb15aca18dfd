"""The command `erulab`: its help, its commands, a conf folder of one's own, completion in a real bash."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from erulab.__main__ import COMMANDS
from erulab.config.compose import CONF
from erulab.run import flags_first

ROOT = CONF.parent


@pytest.fixture
def own_conf(tmp_path: Path) -> Path:
    """my_conf/ with a method variant, a recipe that chooses it, and a file that stands for one of conf/."""
    texts = {
        "method/gentle.yaml": "defaults: [npo, _self_]\nbeta: 0.05\n",
        "experiment/mine.yaml": "# @package _global_\ndefaults:\n  - override /method: gentle\nseed: 7\n",
        "engine/local.yaml": "name: local\nprocesses: 1\n",
    }
    for name, text in texts.items():
        file = tmp_path / "my_conf" / name
        file.parent.mkdir(parents=True)
        file.write_text(text)
    return tmp_path / "my_conf"


def erulab(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "erulab", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_names_the_commands_and_loads_nothing(arguments: list[str], tmp_path: Path) -> None:
    looked = "import sys, erulab.__main__ as front; front.main(); print('hydra' in sys.modules, 'torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", looked, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert all(f"\n  {name} " in answer.stdout for name in COMMANDS), answer.stderr
    assert answer.stdout.splitlines()[-1] == "False False"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_module_that_runs(name: str) -> None:
    spec = importlib.util.find_spec(COMMANDS[name][0])
    assert spec is not None and spec.origin is not None
    assert ("def cli(" if name == "run" else "def main(arguments") in Path(spec.origin).read_text()


@pytest.mark.parametrize("name", ["run", "report"])
def test_a_command_has_its_own_help(name: str, tmp_path: Path) -> None:
    answer = erulab(tmp_path, name, "--help")
    assert answer.returncode == 0, answer.stderr
    assert f"erulab.{name}" in answer.stdout


def test_an_unknown_command_is_one_line(tmp_path: Path) -> None:
    answer = erulab(tmp_path, "ran")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == f"erulab: unknown command 'ran'; known: {', '.join(COMMANDS)}\n"


def test_the_users_conf_folder_comes_first(own_conf: Path) -> None:
    shown = erulab(own_conf.parent, "run", "experiment=mine", "--config-dir", "my_conf", "engine=local", "--cfg", "job")
    assert shown.returncode == 0, shown.stderr
    for line in ("beta: 0.05", "seed: 7", "processes: 1"):
        assert f"{line}\n" in shown.stdout
    wrong = erulab(own_conf.parent, "run", "--config-dir", "my_conf", "method=gentel")
    assert wrong.returncode == 2
    assert "did you mean gentle?" in wrong.stderr
    missing = erulab(own_conf.parent, "run", "--config-dir", "your_conf")
    assert missing.returncode == 2
    assert missing.stderr.startswith("--config-dir your_conf: no such folder")


def test_other_commands_find_it_by_the_environment(own_conf: Path) -> None:
    planned = erulab(own_conf.parent, "plan", "experiment=mine", ERULAB_CONF="my_conf")
    assert planned.returncode == 0, planned.stderr
    listed = erulab(own_conf.parent, "list", "methods", ERULAB_CONF="my_conf")
    assert "\ngentle\t" in listed.stdout


@pytest.mark.parametrize(
    ("typed", "passed_on"),
    [
        (["a=1", "-m", "b=2"], ["-m", "a=1", "b=2"]),
        (["a=1", "--cfg", "job", "b=2"], ["--cfg", "job", "a=1", "b=2"]),
        (["a=1", "--config-dir", "own", "--multirun"], ["--config-dir", "own", "--multirun", "a=1"]),
        (["~a", "b=-1"], ["~a", "b=-1"]),
    ],
)
def test_flags_may_stand_among_overrides(typed: list[str], passed_on: list[str]) -> None:
    assert flags_first(typed) == passed_on


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("erulab r", {"run", "report"}),
        ("erulab run meth", {"method=", "method."}),
        (
            "erulab run method=simnpo_",
            {"method=simnpo_tofu_forget05", "method=simnpo_tofu_forget10", "method=simnpo_wmdp"},
        ),
        ("erulab run method=npo method.be", {"method.beta="}),
        ("erulab list m", set()),
    ],
)
def test_completion_in_bash(line: str, offered: set[str], tmp_path: Path) -> None:
    command = tmp_path / "erulab"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m erulab "$@"\n')
    command.chmod(0o755)
    script = textwrap.dedent(f"""
        eval "$(erulab -sc install=bash)"
        export COMP_LINE="{line}" COMP_POINT={len(line)}
        COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        hydra_bash_completion
        printf '%s\\n' "${{COMPREPLY[@]}}"
        complete -p erulab >&2
    """)
    path = f"{tmp_path}:{os.environ['PATH']}"
    answer = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path},
    )
    assert set(answer.stdout.split()) == offered, answer.stderr
    assert "hydra_bash_completion erulab" in answer.stderr
