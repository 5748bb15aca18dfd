"""Accuracies and log-likelihoods against lm-evaluation-harness itself, where it is installed (pip install lm-eval).

The same random model folder and the same questions go through both. The harness's own task files are taken, with the
hub id replaced by local files, so that header, prompt, choices and few-shot form are the harness's words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

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
from tests.questions import ARC, ARC_OF_QUERIES, ARC_QUERIES, MMLU_DEV, WMDP, write

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install lm-eval")

SUBJECTS = ("anatomy", "high_school_us_history", "virology")


@dataclass(frozen=True)
class Harness:
    """What the harness makes of a task: acc, acc_norm where it has one, and (questions, choices) log-likelihoods."""

    accuracy: float
    accuracy_norm: float | None
    likelihoods: list[list[float]]


@pytest.fixture(scope="module", params=["byte_level", "metaspace"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a tokenizer without, and one with, a beginning-of-text token."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = byte_level() if request.param == "byte_level" else metaspace()
    made = tiny_model("llama", len(tokenizer), max_position_embeddings=2048)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for subject in ("bio", "cyber", "chem"):
        write(folder / f"wmdp-{subject}.jsonl", WMDP)
    for subject in SUBJECTS:
        write(folder / subject / "test.jsonl", WMDP)
        write(folder / subject / "dev.jsonl", MMLU_DEV)
    write(folder / "arc_easy.jsonl", ARC_QUERIES)
    write(folder / "ARC-Challenge" / "test.jsonl", ARC)
    return folder


def harness(model: Path, task: str, splits: dict[str, Path], tmp_path: Path, shots: int = 0) -> Harness:
    """The harness's own task on local files."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    files = {split: str(file) for split, file in splits.items()}
    local = {
        "include": str(_task_file(task)),
        "task": f"local_{task}",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(tmp_path / "cache")},
        "tag": None,
    }
    (tmp_path / "tasks").mkdir(exist_ok=True)
    (tmp_path / "tasks" / f"{task}.yaml").write_text(yaml.safe_dump(local))
    found = simple_evaluate(
        HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=4),
        tasks=[f"local_{task}"],
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
        num_fewshot=shots,
        bootstrap_iters=0,
    )
    figures, samples = found["results"][f"local_{task}"], found["samples"][f"local_{task}"]
    samples.sort(key=lambda sample: sample["doc_id"])
    likelihoods = [[float(reply[0]) for reply in sample["filtered_resps"]] for sample in samples]
    return Harness(figures["acc,none"], figures.get("acc_norm,none"), likelihoods)


def _task_file(task: str) -> Path:
    """Several families of tasks have files of one name (mmlu_anatomy: also with chains of thought)."""
    folders = {"wmdp": "wmdp", "mmlu": "mmlu/default", "arc": "arc"}
    return Path(lm_eval.__file__).parent / "tasks" / folders[task.split("_")[0]] / f"{task}.yaml"


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


@pytest.mark.parametrize("subject", ["bio", "cyber", "chem"])
def test_wmdp(subject: str, model: Path, data: Path, tmp_path: Path) -> None:
    theirs = harness(model, f"wmdp_{subject}", {"test": data / f"wmdp-{subject}.jsonl"}, tmp_path)
    options = WmdpQuestionsOptions(path=str(data))
    figures, rows = ours(model, WmdpQuestions(options).load(0, tmp_path))
    same(theirs, figures, rows, f"wmdp_{subject}", [question["answer"] for question in WMDP])


@pytest.mark.parametrize("shots", [0, 2])
def test_mmlu(shots: int, model: Path, data: Path, tmp_path: Path) -> None:
    figures, rows = ours(model, Mmlu(MmluOptions(path=str(data), shots=shots)).load(0, tmp_path))
    theirs = {}
    for subject in SUBJECTS:
        splits = {split: data / subject / f"{split}.jsonl" for split in ("test", "dev")}
        theirs[subject] = harness(model, f"mmlu_{subject}", splits, tmp_path, shots)
    answers = [question["answer"] for question in WMDP]
    for group, subject in zip(("stem", "humanities", "other"), SUBJECTS, strict=True):
        same(theirs[subject], figures, rows, f"mmlu_{group}", answers)
    # The harness weights its group by the number of questions, which is the same for all subjects here.
    assert figures["mmlu/accuracy"] == pytest.approx(sum(one.accuracy for one in theirs.values()) / 3, abs=1e-12)
    assert figures["mmlu/n"] == 3 * len(WMDP)


def test_arc(model: Path, data: Path, tmp_path: Path) -> None:
    """The easy questions are in the form with queries here, and in the hub's form for the harness."""
    figures, rows = ours(model, Arc(ArcOptions(path=str(data))).load(0, tmp_path))
    hub_form = write(tmp_path / "easy.jsonl", ARC_OF_QUERIES)
    for task, file in (("arc_easy", hub_form), ("arc_challenge", data / "ARC-Challenge" / "test.jsonl")):
        splits = dict.fromkeys(("train", "validation", "test"), file)
        asked = ARC_OF_QUERIES if task == "arc_easy" else ARC
        answers = [question["choices"]["label"].index(question["answerKey"]) for question in asked]
        same(harness(model, task, splits, tmp_path), figures, rows, task, answers)
