"""What benchmark=lm_eval refuses before a worker starts, and what its scores depend on; without the harness."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from erulab.config.compose import compose_config
from erulab.costs import devices
from erulab.errors import ConfigError, EnvironmentFault
from erulab.evaluation.external.harness import LmEval, LmEvalOptions
from erulab.evaluation.external.harness_tasks import content_of
from erulab.planning.estimate import estimate
from erulab.planning.rows import Overrides
from erulab.planning.text import plan_as_text


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(metadata, "version", lambda name: "0.4.13")


def test_it_needs_tasks_a_folder_and_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"type benchmark.lm_eval.tasks=\[gsm8k"):
        LmEval(LmEvalOptions()).validate()
    with pytest.raises(ConfigError, match="include_path=.*nowhere is no folder"):
        LmEval(LmEvalOptions(tasks=["own"], include_path=str(tmp_path / "nowhere"))).validate()
    asked = LmEval(LmEvalOptions(tasks=["own"], include_path=str(tmp_path)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match=r"not installed here; type pip install 'erulab\[lm_eval\]'"):
        asked.validate()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(metadata, "version", lambda name: "0.4.9.1")
    with pytest.raises(EnvironmentFault, match="0.4.13 or newer, and here is 0.4.9.1"):
        asked.validate()
    for enough in ("0.4.13", "0.5.0", "1.0"):
        monkeypatch.setattr(metadata, "version", lambda name, version=enough: version)
        asked.validate()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tasks": ["a", "a"]}, "tasks must be names of tasks, each once"),
        ({"tasks": ["a", ""]}, "tasks must be names of tasks"),
        ({"limit": 0}, "limit must be > 0"),
        ({"num_fewshot": -1}, "num_fewshot must be >= 0"),
        ({"batch_size": 0}, "batch_size must be > 0"),
    ],
)
def test_values_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LmEvalOptions(**options)


def test_task_files_count_by_content_and_never_by_path(installed: None, tmp_path: Path) -> None:
    def identity(folder: str, text: str) -> dict[str, Any]:
        path = tmp_path / folder / "inner"
        path.mkdir(parents=True, exist_ok=True)
        (path / "task.yaml").write_text(text)
        (path / "__pycache__").mkdir(exist_ok=True)
        (path / "__pycache__" / f"{folder}.pyc").touch()
        return LmEval(LmEvalOptions(tasks=["own"], include_path=str(tmp_path / folder))).identity(tmp_path)

    assert identity("first", "task: own") == identity("second", "task: own") != identity("first", "task: other")


def test_questions_and_examples_count_by_content() -> None:
    def content(questions: list[str], examples: list[str], own: int | None, shots: int | None) -> dict[str, Any]:
        task = SimpleNamespace(
            VERSION=1.0,
            config=SimpleNamespace(num_fewshot=own),
            eval_docs=[{"q": one} for one in questions],
            fewshot_docs=lambda: [{"q": one} for one in examples],
        )
        return content_of(task, shots)

    none = content(["a", "b"], ["c"], None, None)
    assert none == content(["a", "b"], ["d"], 0, 5)  # the harness keeps such a task at 0 examples
    assert none != content(["b", "a"], ["c"], None, None)
    assert content(["a"], ["c"], 5, None) == content(["a"], ["c"], None, 5) != content(["a"], ["d"], 5, None)


def test_the_plan_says_that_it_is_not_counted() -> None:
    def planned(*overrides: str) -> str:
        config = compose_config(["benchmark=lm_eval", "benchmark.lm_eval.tasks=[gsm8k]", *overrides])
        return plan_as_text(estimate(config, devices.find_device("h100-80gb"), 0.4, Overrides(8, 40, 20)))

    assert "what lm_eval asks the models" in planned()
    assert "lm_eval" not in planned("stages=[target,unlearn]")
