"""The wheel: conf/ and the launchers are in it, and a run and a sweep compose from an empty folder with it alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from erulab.config.compose import CONF

ROOT = CONF.parent


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content. It is built from a copy, since a build leaves files in its folder."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("conf", "erulab", "launch"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder)]
    answer = subprocess.run([*build, str(source)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "unpacked")
    return folder / "unpacked"


def typed(unpacked: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m erulab ARGUMENTS` in another folder, with nothing of the checkout on the path."""
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    return subprocess.run(
        [sys.executable, "-m", "erulab", *arguments], cwd=cwd, capture_output=True, text=True, env=environment
    )


def test_every_folder_is_named_in_pyproject() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "erulab").rglob("*.py")}
    beside = {"erulab.conf", "erulab.launch", "erulab.launch.hydra_plugins.erulab_launchers"}
    assert set(listed) == rooms | beside


def test_it_holds_configs_launchers_and_templates(unpacked: Path) -> None:
    files = {str(file.relative_to(unpacked)) for file in unpacked.rglob("*") if file.is_file()}
    assert {f"erulab/{file.relative_to(ROOT)}" for file in CONF.rglob("*.yaml")} <= files
    assert {f"erulab/{file.relative_to(ROOT)}" for file in (ROOT / "launch" / "hydra_plugins").rglob("*.py")} <= files
    own = [file for file in (ROOT / "erulab").rglob("*") if file.suffix in (".py", ".html", ".css")]
    assert {str(file.relative_to(ROOT)) for file in own} <= files
    assert all(name.startswith(("erulab/", "erulab-")) for name in files)
    (entry,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "erulab = erulab.__main__:cli" in entry.read_text()


def test_a_run_composes_from_an_empty_folder(unpacked: Path, tmp_path: Path) -> None:
    shown = typed(unpacked, tmp_path, "run", "method=npo", "--cfg", "job")
    assert shown.returncode == 0, shown.stderr
    assert "beta: 0.1" in shown.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_reaches_our_launcher(unpacked: Path, tmp_path: Path) -> None:
    # Our launcher alone names the job that cannot run, before any job starts.
    for launcher in ("erulab_local", "gpu_pool"):
        swept = typed(unpacked, tmp_path, "run", "-m", "method=npo,ga", "reward=elastic", f"hydra/launcher={launcher}")
        assert swept.returncode == 2, swept.stdout + swept.stderr
        assert swept.stderr.startswith("job 1 (method=ga reward=elastic): ")
    assert list(tmp_path.iterdir()) == []


def test_lists_and_plans_work_from_it(unpacked: Path, tmp_path: Path) -> None:
    listed = typed(unpacked, tmp_path, "list", "attacks")
    assert "suite_fast\t" in listed.stdout, listed.stderr
    planned = typed(unpacked, tmp_path, "plan", "method=npo", "--format", "json")
    assert planned.returncode == 0, planned.stderr
