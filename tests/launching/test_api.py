"""From Python: the same folders and workers as the command line, and its lines as exceptions."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from erulab import api
from erulab.errors import ConfigError, DataError, Interrupted
from tests.commands import Answer
from tests.launching.test_sweep import BODY

STOPPED = BODY.replace('end(3, "no rows")', 'end(75, "stopped")')


@pytest.fixture
def ran(here: Path, worker: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many workers have started so far."""
    monkeypatch.setattr("erulab.launching.job.WORKER", worker(BODY))
    return lambda: len((here / "ran").read_text()) if (here / "ran").is_file() else 0


def test_a_run_has_the_folder_and_the_command_of_the_command_line(
    command: Callable[..., Answer], ran: Callable[[], int], here: Path
) -> None:
    overrides = ["method=npo", "method.beta=0.1", "attack=none"]
    argv = list(sys.argv)
    result = api.run(overrides)
    assert ran() == 1 and sys.argv == argv
    assert command(*overrides).code == 0
    assert [path.name for path in (here / "outputs" / "fictitious").iterdir()] == [result.folder.name]
    env = json.loads((result.folder / "env.json").read_text())
    assert env["command"] == "python -m erulab.run method=npo method.beta=0.1 attack=none"
    assert result.scores == json.loads((result.folder / "scores.json").read_text())
    # Its parts are the files' numbers, and it is read back the second time.
    frame = result.frame().set_index(["model", "suite", "figure"])["value"]
    assert frame["unlearned", "forget", "probability"] == 0.1 and len(frame) == 6
    before = ran()
    again = api.run(overrides)
    assert ran() == before and again.scores == result.scores and again.verdict == result.verdict
    assert "<table>" in again._repr_html_()


def test_a_sweep_returns_what_is_done_and_names_what_failed(ran: Callable[[], int], here: Path) -> None:
    results = api.sweep(["method=npo", "method.beta=0.1,0.2,0.3", "attack=none"])
    assert ran() == 3 and len(results) == 2
    assert list(results.frame()["method.beta"]) == [0.1, 0.3]
    ((typed, error),) = results.errors.items()
    assert "method.beta=0.2" in typed and isinstance(error, DataError) and str(error) == "no rows"
    (folder,) = (here / "outputs" / "sweeps").iterdir()
    assert "erulab.run -m method=npo" in json.loads((folder / "sweep.json").read_text())["command"]
    loaded = api.load(folder)
    assert {one.folder.name for one in results} < {one.folder.name for one in loaded}


def test_a_named_folder_and_a_preset_sweep(ran: Callable[[], int], here: Path) -> None:
    assert api.run(["attack=none", "hydra.run.dir=mine"]).folder == Path("mine")
    results = api.sweep(["sweep=elastic", "adversary=none", "attack=none"])
    assert list(results.frame()["reward"]) == ["reference", "reference_free", "elastic"]


def test_lines_of_the_command_line_are_exceptions(command: Callable[..., Answer], ran: Callable[[], int]) -> None:
    for typed in (["method=nop"], ["trainer.lrr=1"], ["method=npo", "method.beta=x"], ["seed=1,2"], ["seed=("]):
        with pytest.raises(ConfigError) as caught:
            api.run(typed)
        answer = command(*typed)
        assert answer.code == 2 and answer.err == f"{caught.value}\n"
    with pytest.raises(DataError, match="no rows"):
        api.run(["method=npo", "method.beta=0.2", "attack=none"])
    with pytest.raises(DataError, match="no rows"):  # no job has a result
        api.sweep(["method=npo", "method.beta=0.2", "attack=none"])
    with pytest.raises(ConfigError, match="job .*beta=-1.*must be > 0"):
        api.sweep(["method=npo", "method.beta=0.1,-1"])
    for refused in (["sweep=methods"], ["-m"], ["--lr=3"]):
        with pytest.raises(ConfigError):
            api.run(refused)
    with pytest.raises(ConfigError, match="known: runs, arms"):
        api.Results((), {}).frame("run")


def test_a_stop_is_an_exception(here: Path, worker: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erulab.launching.job.WORKER", worker(STOPPED))
    with pytest.raises(Interrupted, match="1 of 2 jobs"):
        api.sweep(["method=npo", "method.beta=0.1,0.2", "attack=none"])


def test_another_thread_is_refused() -> None:
    lines: list[str] = []

    def call() -> None:
        try:
            api.run([])
        except ConfigError as error:
            lines.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert len(lines) == 1 and "main thread" in lines[0]


def test_the_module_loads_no_torch_and_no_pandas() -> None:
    # torch is in sys.modules as a name only: its parts are not.
    heavy = "{'torch.nn', 'transformers', 'pandas', 'matplotlib'}"
    code = f"import sys; from erulab import api; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
