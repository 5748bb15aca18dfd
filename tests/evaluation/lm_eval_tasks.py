"""Runs tasks of lm-evaluation-harness on local files: `python lm_eval_tasks.py REQUESTS.json ANSWERS.json`.

This is a program of its own that runs in the environment .venv-lm-eval, so that no other test sees the packages that
the harness needs. Each request names a model folder, a task, the file of each split, and the examples per prompt.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

TASKS = Path(lm_eval.__file__).parent / "tasks"
# Several families of tasks have files of one name (mmlu_anatomy: also with chains of thought).
FOLDERS = {"wmdp": "wmdp", "mmlu": "mmlu/default", "arc": "arc"}


def run_task(model: HFLM, request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Returns acc, acc_norm (None where the task has none) and (questions, choices) log-likelihoods.

    The harness's own task file is included; only the hub id is replaced by local files.
    """
    task = request["task"]
    local = {
        "include": str(TASKS / FOLDERS[task.split("_")[0]] / f"{task}.yaml"),
        "task": f"local_{task}",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": request["splits"], "cache_dir": str(folder / "cache")},
        "tag": None,
    }
    folder.mkdir()
    (folder / f"{task}.yaml").write_text(yaml.safe_dump(local))
    found = lm_eval.simple_evaluate(
        model,
        tasks=[f"local_{task}"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        num_fewshot=request["shots"],
        bootstrap_iters=0,
    )
    figures, samples = found["results"][f"local_{task}"], found["samples"][f"local_{task}"]
    samples.sort(key=lambda sample: sample["doc_id"])
    likelihoods = [[float(reply[0]) for reply in sample["filtered_resps"]] for sample in samples]
    return {"accuracy": figures["acc,none"], "accuracy_norm": figures.get("acc_norm,none"), "likelihoods": likelihoods}


def main(requests_file: Path, answers_file: Path) -> None:
    requests = json.loads(requests_file.read_text())
    models = {
        folder: HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=4)
        for folder in {request["model"] for request in requests}
    }
    answers = [
        run_task(models[request["model"]], request, answers_file.with_name(f"task-{number}"))
        for number, request in enumerate(requests)
    ]
    answers_file.write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
