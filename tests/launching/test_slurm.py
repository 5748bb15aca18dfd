"""Slurm: the batch script under a fake srun that starts two nodes' tasks, and the launcher that submits jobs.

The launcher's own test needs hydra-submitit-launcher, which the requirements do not hold; it is skipped without.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from erulab.config.compose import CONF, load_config
from tests.commands import Answer

ROOT = CONF.parent
SCRIPT = ROOT / "launch" / "slurm.sh"
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do echo "srun $1" >> srun.seen; shift; done
"$@" > node0.out 2>&1 & first=$!
"$@" > node1.out 2>&1 & second=$!
wait $first; code=$?
wait $second; exit $((code > $? ? code : $?))
"""
# Runs every task of the array at once.
SBATCH = """#!/bin/bash
script=${@: -1}
cp "$script" submitted.sh
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
for i in $(seq 0 "${last:-0}"); do
    SLURM_JOB_ID=7 SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$i SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 \\
    SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_JOB_NODELIST=localhost \\
    bash -c "bash $script; touch ended$i" > "task$i.out" 2>&1 &
done
echo "Submitted batch job 7"
"""
SACCT = """#!/bin/bash
echo "JobID|State"
for i in 0 1 2; do [ -e ended$i ] && echo "7_$i|COMPLETED" || echo "7_$i|RUNNING"; done
"""
STAND_IN = """#!/bin/sh
shift 2
exec {python} -c "import sys; from erulab.run import cli; import erulab.launching.job as job
job.WORKER = {worker!r}; sys.exit(cli())" "$@"
"""


def tool(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(text)
    file.chmod(0o755)
    return file


def batch(here: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:  # the port follows from the job's number
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    slurm = {
        "PATH": f"{here / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(number),
        "SLURM_SUBMIT_DIR": str(here),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NNODES": "2",
    }
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        env=os.environ | slurm | environment,
        capture_output=True,
        text=True,
        cwd=here.parent,
    )


@pytest.fixture
def stand_in(here: Path, worker: Callable[[str], str]) -> Callable[[str], str]:
    """Returns a `python` whose `-m erulab.run` uses a stand-in worker with the given body."""

    def write(body: str) -> str:
        text = STAND_IN.format(python=sys.executable, worker=worker(body))
        return str(tool(here / "bin", "stand-in", text))

    return write


def test_the_script_is_bash() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0


def test_two_nodes_are_one_run(here: Path, stand_in: Callable[[str], str]) -> None:
    python = stand_in('print("rank", rank, "of", os.environ["WORLD_SIZE"], flush=True)\nend(0) if rank == 0 else None')
    tool(here / "bin", "srun", SRUN)
    tool(here / "bin", "scontrol", '#!/bin/sh\n[ "$3" = "node[1-2]" ] && printf "localhost\\nother\\n"\n')
    done = batch(here, "engine=zero2", "engine.processes=1", PYTHON=python, SLURM_CPUS_PER_TASK="16")
    said = [(here / f"node{node}.out").read_text() for node in (0, 1)]
    assert done.returncode == 0, done.stderr + "".join(said)
    (run,) = (here / "outputs" / "fictitious").iterdir()
    assert [(run / f"rank{rank}.log").read_text().strip() for rank in (0, 1)] == ["rank 0 of 2", "rank 1 of 2"]
    assert sum("rank 0 of 2" in text for text in said) == 1
    assert (here / "srun.seen").read_text().splitlines()[:3] == [
        "srun --nodes=2",
        "srun --ntasks-per-node=1",
        "srun --cpus-per-task=16",
    ]


def test_one_node_needs_no_meeting(here: Path, stand_in: Callable[[str], str]) -> None:
    python = stand_in("end(0)")
    tool(here / "bin", "srun", '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    done = batch(here, "engine=local", PYTHON=python, SLURM_NNODES="1")
    assert done.returncode == 0, done.stderr
    (run,) = (here / "outputs" / "fictitious").iterdir()
    assert load_config(run / "run.yaml").engine.rendezvous is None


@pytest.mark.parametrize(
    ("environment", "code", "said"),
    [({"SLURM_JOB_ID": ""}, 2, "sbatch launch/slurm.sh"), ({"PYTHON": "/nowhere/python"}, 4, "no /nowhere/python")],
)
def test_what_is_missing_is_said(here: Path, environment: dict[str, str], code: int, said: str) -> None:
    done = batch(here, **environment)
    assert done.returncode == code and said in done.stderr and len(done.stderr.splitlines()) == 1


submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="hydra-submitit-launcher is not installed"
)


@pytest.mark.skipif(importlib.util.find_spec("submitit") is not None, reason="hydra-submitit-launcher is installed")
def test_the_launcher_says_what_it_needs(command: Callable[..., Answer], here: Path) -> None:
    answer = command("-m", "hydra/launcher=submitit_slurm", "seed=0,1")
    assert answer.code == 4
    assert "pip install hydra-submitit-launcher" in answer.err and len(answer.err.splitlines()) == 1
    assert not (here / "outputs").exists()


@pytest.mark.skipif(importlib.util.find_spec("submitit") is not None, reason="hydra-submitit-launcher is installed")
def test_ctrl_c_says_that_submitted_jobs_go_on(
    command: Callable[..., Answer], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the plugin that is interrupted while it waits."""
    plugin, core = here / "hydra_plugins" / "hydra_submitit_launcher", here / "submitit" / "core"
    for folder in (plugin, core):
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    (core / "utils.py").write_text("class UncompletedJobError(Exception): pass\n")
    (plugin / "submitit_launcher.py").write_text(
        "class SlurmLauncher:\n"
        "    def __init__(self, **options): pass\n"
        "    def setup(self, **parts): pass\n"
        "    def launch(self, overrides, first): raise KeyboardInterrupt\n"
    )
    monkeypatch.syspath_prepend(str(here))
    answer = command("-m", "hydra/launcher=submitit_slurm", "seed=0,1", "attack=none", "engine=local")
    # Other tests shall find what is installed.
    for name in [name for name in sys.modules if name.startswith(("submitit", "hydra_plugins.hydra_submitit"))]:
        del sys.modules[name]
    assert answer.code == 75, answer.err
    (sweep,) = (here / "outputs" / "sweeps").iterdir()
    assert "scancel" in answer.out and str(sweep.relative_to(here) / ".submitit") in answer.out
    assert "nothing was running" not in answer.out + answer.err
    assert [job["code"] for job in json.loads((sweep / "sweep.json").read_text())["jobs"]] == [None, None]


@submitit
def test_the_launcher_checks_submits_and_collects(
    command: Callable[..., Answer], here: Path, worker: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (
        ("sbatch", SBATCH),
        ("srun", '#!/bin/bash\nuntil [[ $1 == /*/python* ]]; do shift; done\nexec "$@"\n'),
        ("sacct", SACCT),
        ("scontrol", "#!/bin/sh\necho localhost\n"),
    ):
        tool(here / "bin", name, text)
    monkeypatch.setenv("PATH", f"{here / 'bin'}:{os.environ['PATH']}")
    # Jobs on the "nodes" are commands of their own: a plugin of the user's gives them a stand-in worker.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here / "modules"), str(ROOT), *filter(None, sys.path)]))
    module = worker('end(3, "no rows") if "beta: 0.2" in (folder / "run.yaml").read_text() else end(0)')
    (here / "modules" / "on_node.py").write_text(f"from erulab.launching import job\njob.WORKER = {module!r}\n")
    typed = ("-m", "hydra/launcher=submitit_slurm", "plugins=[on_node]", "method=npo", "attack=none", "engine=local")
    monkeypatch.syspath_prepend(str(here / "modules"))
    wrong = command(*typed, "method.beta=0.1,-1")
    assert wrong.code == 2 and not (here / "submitted.sh").exists()
    answer = command(*typed, "method.beta=0.1,0.2,0.3", "hydra.launcher.partition=big")
    assert answer.code == 3, answer.err
    (sweep,) = (here / "outputs" / "sweeps").glob("*/sweep.json")
    assert [job["code"] for job in json.loads(sweep.read_text())["jobs"]] == [0, 3, 0]
    script = (here / "submitted.sh").read_text()
    for line in ("--ntasks-per-node=1", "--nodes=1", "--gpus-per-node=1", "--partition=big", "--signal=USR2@300"):
        assert f"#SBATCH {line}" in script
