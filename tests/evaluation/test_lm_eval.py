"""Accuracies and log-likelihoods against lm-evaluation-harness itself.

The same random model folders and the same questions go through both. The harness's own task files are taken, with the
hub id replaced by local files, so that header, prompt, choices and few-shot form are the harness's words. It runs in an
environment of its own, .venv-lm-eval, which launch/test.sh makes.
"""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from erulab.data.arc import Arc, ArcOptions
from erulab.data.mmlu import Mmlu, MmluOptions
from erulab.data.rows import Benchmark
from erulab.data.wmdp import WmdpQuestions, WmdpQuestionsOptions
from erulab.evaluation.aggregate import aggregate
from erulab.evaluation.evaluate import evaluate
from erulab.evaluation.row_score import RowScore
from erulab.models.loading import load_folder
from erulab.models.options import Attention
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks
from tests.models.conftest import byte_level, metaspace, tiny_model
from tests.samples.questions import ARC, ARC_OF_QUERIES, ARC_QUERIES, MMLU_DEV, WMDP, write

PYTHON = Path(__file__).parents[2] / ".venv-lm-eval" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="there is no lm-evaluation-harness in .venv-lm-eval; launch/test.sh installs it"
)

TOKENIZERS = {"byte_level": byte_level, "metaspace": metaspace}  # without and with a beginning-of-text token
WMDP_SUBJECTS = ("bio", "cyber", "chem")
MMLU_SUBJECTS = ("anatomy", "high_school_us_history", "virology")
SHOTS = (0, 2)


@dataclass(frozen=True)
class Harness:
    """The harness's results on one task: acc, acc_norm where it has one, and (questions, choices) log-likelihoods."""

    accuracy: float
    accuracy_norm: float | None
    likelihoods: list[list[float]]


Results = dict[tuple[str, str, int], Harness]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of random models, by the name of their tokenizer."""
    folders = {}
    for name, make in TOKENIZERS.items():
        tokenizer = make()
        folders[name] = tmp_path_factory.mktemp(name)
        tiny_model("llama", len(tokenizer), max_position_embeddings=2048).save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The questions in the layouts that erulab reads, and the easy questions of ARC in the hub's form."""
    folder = tmp_path_factory.mktemp("data")
    for subject in WMDP_SUBJECTS:
        write(folder / f"wmdp-{subject}.jsonl", WMDP)
    for subject in MMLU_SUBJECTS:
        write(folder / subject / "test.jsonl", WMDP)
        write(folder / subject / "dev.jsonl", MMLU_DEV)
    write(folder / "arc_easy.jsonl", ARC_QUERIES)
    write(folder / "ARC-Challenge" / "test.jsonl", ARC)
    write(folder / "hub" / "arc_easy.jsonl", ARC_OF_QUERIES)
    return folder


@pytest.fixture(scope="module")
def harness(models: dict[str, Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What the harness finds, by (tokenizer, task, shots). One process does all: starting it takes longest."""
    tasks: list[tuple[str, dict[str, Path], int]] = [
        (f"wmdp_{subject}", {"test": data / f"wmdp-{subject}.jsonl"}, 0) for subject in WMDP_SUBJECTS
    ]
    for subject in MMLU_SUBJECTS:
        splits = {split: data / subject / f"{split}.jsonl" for split in ("test", "dev")}
        tasks += [(f"mmlu_{subject}", splits, shots) for shots in SHOTS]
    for task, file in (("arc_easy", "hub/arc_easy.jsonl"), ("arc_challenge", "ARC-Challenge/test.jsonl")):
        tasks.append((task, dict.fromkeys(("train", "validation", "test"), data / file), 0))
    requests = [
        {
            "model": str(folder),
            "task": task,
            "splits": {split: str(file) for split, file in splits.items()},
            "shots": shots,
        }
        for folder in models.values()
        for task, splits, shots in tasks
    ]
    folder = tmp_path_factory.mktemp("harness")
    (folder / "requests.json").write_text(json.dumps(requests))
    script = Path(__file__).with_name("lm_eval_tasks.py")
    done = subprocess.run(
        [PYTHON, script, folder / "requests.json", folder / "answers.json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [Harness(**answer) for answer in json.loads((folder / "answers.json").read_text())]
    keys = [(name, task, shots) for name in models for task, _, shots in tasks]
    return dict(zip(keys, answers, strict=True))


def ours(model: Path, benchmark: Benchmark) -> tuple[dict[str, float], list[RowScore]]:
    loaded = load_folder(str(model), Attention.eager)
    rows = evaluate(loaded, benchmark.suites, EvaluationOptions(batch_tokens=4096), Ranks())
    return aggregate(rows, benchmark), rows


def same(theirs: Harness, figures: dict[str, float], rows: list[RowScore], suite: str, answers: list[int]) -> None:
    """Accuracies are equal; the log-odds of every question are those of the harness's log-likelihoods."""
    assert figures[f"{suite}/n"] == len(answers) == len(theirs.likelihoods)
    assert figures[f"{suite}/accuracy"] == pytest.approx(theirs.accuracy, abs=1e-12)
    if theirs.accuracy_norm is not None:
        assert figures[f"{suite}/accuracy_norm"] == pytest.approx(theirs.accuracy_norm, abs=1e-12)
    scored = [row for row in rows if row.suite == suite]
    for row, likelihoods, answer in zip(scored, theirs.likelihoods, answers, strict=True):
        wrong = [value for i, value in enumerate(likelihoods) if i != answer]
        odds = likelihoods[answer] - math.log(sum(math.exp(value - max(wrong)) for value in wrong)) - max(wrong)
        assert row.figures["log_odds"] == pytest.approx(odds, abs=1e-4)
    assert len({round(value, 6) for values in theirs.likelihoods for value in values}) > len(answers)


every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS)


@every_tokenizer
@pytest.mark.parametrize("subject", WMDP_SUBJECTS)
def test_wmdp(
    subject: str, tokenizer: str, models: dict[str, Path], data: Path, harness: Results, tmp_path: Path
) -> None:
    options = WmdpQuestionsOptions(path=str(data))
    figures, rows = ours(models[tokenizer], WmdpQuestions(options).load(0, tmp_path))
    theirs = harness[tokenizer, f"wmdp_{subject}", 0]
    same(theirs, figures, rows, f"wmdp_{subject}", [question["answer"] for question in WMDP])


@every_tokenizer
@pytest.mark.parametrize("shots", SHOTS)
def test_mmlu(
    shots: int, tokenizer: str, models: dict[str, Path], data: Path, harness: Results, tmp_path: Path
) -> None:
    figures, rows = ours(models[tokenizer], Mmlu(MmluOptions(path=str(data), shots=shots)).load(0, tmp_path))
    theirs = {subject: harness[tokenizer, f"mmlu_{subject}", shots] for subject in MMLU_SUBJECTS}
    answers = [question["answer"] for question in WMDP]
    for group, subject in zip(("stem", "humanities", "other"), MMLU_SUBJECTS, strict=True):
        same(theirs[subject], figures, rows, f"mmlu_{group}", answers)
    # The harness weights its group by the number of questions, which is the same for all subjects here.
    assert figures["mmlu/accuracy"] == pytest.approx(sum(one.accuracy for one in theirs.values()) / 3, abs=1e-12)
    assert figures["mmlu/n"] == 3 * len(WMDP)


@every_tokenizer
def test_arc(tokenizer: str, models: dict[str, Path], data: Path, harness: Results, tmp_path: Path) -> None:
    """The easy questions are in the form with queries here, and in the hub's form for the harness."""
    figures, rows = ours(models[tokenizer], Arc(ArcOptions(path=str(data))).load(0, tmp_path))
    for task, asked in (("arc_easy", ARC_OF_QUERIES), ("arc_challenge", ARC)):
        answers = [question["choices"]["label"].index(question["answerKey"]) for question in asked]
        same(harness[tokenizer, task, 0], figures, rows, task, answers)
