"""The first steps of a user: help, lists, a plugin; all without torch."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from erulab import registry
from erulab.config.compose import CONF, prepare_command_line
from erulab.config.help import choices_by_group
from erulab.errors import EnvironmentFault
from erulab.launching import machine

ROOT = CONF.parent
PLUGIN = '''
from dataclasses import dataclass
from erulab.methods.base import MethodOptions
from erulab.methods.ga import GradientAscent
from erulab.registry import methods

@dataclass
class MyOptions(MethodOptions):
    name: str = "mymethod"
    strength: float = 2.0

@methods.register("mymethod", MyOptions, paper="none yet", needs="courage")
class MyMethod(GradientAscent):
    """Ours."""
'''


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""}
    )


def test_composition_loads_no_torch() -> None:
    answer = python(
        "-c",
        textwrap.dedent("""
        import sys
        import erulab.run, erulab.list, erulab.launching.sweep
        from erulab.config.compose import compose_config
        from erulab.launching.job import plan_job
        plan_job(compose_config())
        parts = ["dataset.forget=train", "dataset.retain=test"]
        compose_config(["dataset=hub", "dataset.path=owner/name", *parts])
        heavy = ("torch._C", "transformers", "deepspeed", "wandb", "matplotlib", "datasets.config", "pyarrow.lib")
        print([name for name in heavy if name in sys.modules])
        """),
    )
    assert answer.stdout.strip() == "[]", answer.stderr


def test_help_names_groups_choices_and_examples() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = python("-m", "erulab.run", "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, because other tests run at the same time.
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert answer.returncode == 0, answer.stderr
    for line in ("method: ", ", dpo, ", ", none, npo, ", "attack: ", "quantize, relearn", "experiment/tofu: llama2"):
        assert line in answer.stdout
    assert "sweep=methods" in answer.stdout
    assert "schema_" not in answer.stdout
    print(f"--help took {seconds:.2f} s")
    assert seconds < 15  # 1.5 s on a machine that does nothing else


def test_help_lists_what_hydra_would_list() -> None:
    """Hydra reads and searches where the help lists names of files."""
    prepare_command_line([])  # Hydra looks for plugins once in a process
    found = choices_by_group()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        for group in ("method", "attack", "experiment", "experiment/tofu", "sweep", "tracker"):
            assert sorted(found[group]) == loader.get_group_options(group), group


@pytest.mark.parametrize("module", ["run", "bench.__main__", "study.__main__", "report", "plan"])
def test_help_loads_nothing_that_takes_time(module: str) -> None:
    """torch, scipy and transformers take seconds; a plugin's lazy torch is a module without its C part."""
    script = f"""
        import sys
        from importlib import import_module
        sys.argv = ["erulab", "--help"]
        module = import_module("erulab.{module}")
        try:
            (module.cli if "{module}" == "run" else module.main)()
        except SystemExit:
            pass
        heavy = ("torch._C", "transformers", "scipy", "optuna", "wandb", "matplotlib", "pandas")
        print([name for name in heavy if name in sys.modules])
    """
    answer = python("-c", textwrap.dedent(script))
    assert answer.stdout.splitlines()[-1] == "[]", answer.stderr


def test_cfg_job_shows_the_config() -> None:
    answer = python("-m", "erulab.run", "method=npo", "method.beta=0.7", "--cfg", "job")
    assert answer.returncode == 0, answer.stderr
    assert "beta: 0.7" in answer.stdout


def test_a_users_own_method(tmp_path: Path) -> None:
    (tmp_path / "my_module.py").write_text(PLUGIN)
    choose = ["plugins=[my_module]", "method=mymethod", "method.strength=3"]
    shown = python("-m", "erulab.run", *choose, "--cfg", "job", cwd=tmp_path)
    assert "strength: 3.0" in shown.stdout, shown.stderr
    typed = python(
        "-c",
        textwrap.dedent(f"""
        from pathlib import Path
        from erulab.config.compose import compose_config, load_config, save_config
        composed = compose_config({choose})
        save_config(composed, Path("run.yaml"))
        loaded = load_config(Path("run.yaml"))
        print(type(loaded.method).__name__, loaded.method.strength, loaded.plugins, loaded == composed)
        """),
        cwd=tmp_path,
    )
    assert typed.stdout.strip() == "MyOptions 3.0 ['my_module'] True", typed.stderr
    # In another process: run.yaml alone brings the module in.
    loaded = python(
        "-c",
        "from pathlib import Path; from erulab.config.compose import load_config;"
        "print(load_config(Path('run.yaml')).method)",
        cwd=tmp_path,
    )
    assert "strength=3.0" in loaded.stdout, loaded.stderr
    wrong = python("-m", "erulab.run", "plugins=[my_module]", "method=mymethod", "method.strenght=3", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "did you mean strength" in wrong.stderr
    listed = python("-m", "erulab.list", "methods", "--plugins", "my_module", cwd=tmp_path)
    assert "mymethod\tOurs.\tnone yet\tcourage" in listed.stdout


def test_every_plugin_says_what_it_is() -> None:
    registry.load_plugins()
    for known in registry.GROUPS.values():
        for name in known.names():
            assert len(known[name].summary.splitlines()) == 1, f"{known.group}={name}"


@pytest.mark.parametrize(
    ("visible", "names"),
    [(None, ["A", "B"]), ("", []), ("-1", []), ("1", ["B"]), ("1,0", ["B", "A"]), ("GPU-aa", ["A"]), ("7", [])],
)
def test_gpus_are_those_one_may_use(
    visible: str | None, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = tmp_path / "nvidia-smi"
    answers.write_text("#!/bin/sh\necho '0, GPU-aa1, 9.0, A'\necho '1, GPU-bb2, [N/A], B'\n")
    answers.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = machine.gpus()
    assert [gpu.name for gpu in found] == names
    # As CUDA_VISIBLE_DEVICES can name them again: what it said, or what no order of counting changes.
    assert [gpu.device for gpu in found] == (visible or "GPU-aa1,GPU-bb2").split(",")[: len(names)]
    assert all(gpu.capability == (9.0 if gpu.name == "A" else None) for gpu in found)


def test_a_driver_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = tmp_path / "nvidia-smi"
    stuck.write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    stuck.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "DRIVER_SECONDS", 0.2)
    with pytest.raises(EnvironmentFault, match=r"nvidia-smi has not answered.*CUDA_VISIBLE_DEVICES="):
        machine.gpus()
