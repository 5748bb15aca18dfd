"""TOFU end to end: unlearning on the data of one folder, with a second TOFU as an extra benchmark."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.pipeline.conftest import Finished, Runner

NAMES = ("Ada", "Bela", "Cem", "Dora", "Emil", "Fay")
TOWNS = ("Brenwick", "Almora", "Dunmere", "Cosgrove", "Elmira", "Fenton")


def record(number: int) -> dict[str, str]:
    """Returns question and answer of this number; no two rows share a question."""
    first, second = NAMES[number % 6], NAMES[number // 6 % 6]
    town = TOWNS[(number + number // 6) % 6]
    return {"question": f"Where did {first} meet {second} in year {number} ?", "answer": f"They met in {town} ."}


def perturbed(number: int) -> dict[str, object]:
    row = record(number)
    town = row["answer"].split()[-2]
    return row | {
        "paraphrased_question": f"In which town did {row['question'].split()[2]} meet them in year {number} ?",
        "paraphrased_answer": f"It was in {town} .",
        "perturbed_answer": [f"It was in {other} ." for other in TOWNS if other != town][:3],
    }


def choice(number: int) -> dict[str, object]:
    towns = [TOWNS[(number + i) % 6] for i in range(4)]
    return {"question": f"Where is house {number} ?", "answer": towns[0], "perturbed_answer": towns[1:]}


def write(folder: Path, forget: range, retain: range) -> Path:
    files = {
        "forget01": map(record, forget),
        "forget01_perturbed": map(perturbed, forget),
        "retain99": map(record, retain),
        "retain_perturbed": map(perturbed, retain[:8]),
        "real_authors_perturbed": map(choice, range(3)),
        "world_facts_perturbed": map(choice, range(3, 6)),
    }
    folder.mkdir()
    for name, rows in files.items():
        (folder / f"{name}.json").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def finished(run: Runner, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("tofu")
    own = write(root / "own", forget=range(20, 28), retain=range(20))
    other = write(root / "other", forget=range(30, 36), retain=range(36, 48))
    return run(
        "dataset=tofu",
        f"dataset.path={own}",
        "dataset.retain_rows=12",
        "benchmark=tofu",
        f"benchmark.tofu.path={other}",
        "benchmark.tofu.evaluated_rows=4",
        "method=npo",
        "attack=none",
        "evaluation.compat=open_unlearning",
        "evaluation.max_new_tokens=8",
        "target.epochs=30",
        "target.global_batch=4",
    )


@pytest.fixture(autouse=True)
def worked(finished: Finished) -> None:
    assert finished.code == 0


def test_both_benchmarks_are_measured_under_their_names(finished: Finished) -> None:
    for scores in finished.read("scores.json").values():
        of_suites = [name for name in scores if "open_unlearning" not in name and not name.startswith("uds/")]
        counts = {name: scores[name] for name in of_suites if name.endswith("/n")}
        suites = {"retain": 8, "real_authors": 3, "world_facts": 3}
        assert counts == {
            **{f"{name}/n": n for name, n in {**suites, "forget": 8, "heldout": 8}.items()},
            "mia_forget/n": 8,
            "holdout_local/n": 8,
            **{f"tofu/{name}/n": n for name, n in {**suites, "retain": 4, "forget": 4, "heldout": 4}.items()},
            # Groups of rows: facts at their worst phrasing, retain rows that name a forgotten author and the others.
            **{"worst_of_phrasings/n": 8, "tofu/worst_of_phrasings/n": 4},
            **{"retain_naming_forgotten/n": 2, "retain_not_naming_forgotten/n": 6},
        }
        for name in ("model_utility", "open_unlearning/model_utility", "mia/auc_nll", "mia/auc_min_k_plus_plus"):
            assert 0 <= scores[name] <= 1, name
        for name in ("model_utility", "open_unlearning/model_utility", "forget/truth_ratio"):
            assert 0 <= scores[f"tofu/{name}"] <= 1, name
        for suite in ("forget", "heldout", "retain", "real_authors", "world_facts"):
            for figure in ("probability", "rouge", "truth_ratio", "extraction_strength", "exact_memorization"):
                assert f"open_unlearning/{suite}/{figure}" in scores
    scores = finished.read("scores.json")
    for name in ("forget_quality", "open_unlearning/forget_quality"):
        assert scores["oracle"][name] == scores["oracle"][f"tofu/{name}"] == 1.0 >= scores["unlearned"][name]
    assert scores["oracle"]["mia/privleak"] == 0 and scores["target"]["mia/privleak"] < 0
    notes = " ".join(finished.read("stages.json")["data"]["notes"])
    assert "holdout_local, the last 8 retain rows" in notes and "tofu: no holdout01.json" in notes
    assert "open_unlearning/forget/probability" in finished.rundir.report_html.read_text()


def test_figures_are_those_of_the_saved_model(finished: Finished) -> None:
    """The saved model, loaded by plain transformers, gives the membership AUC and the benchmark's probability."""
    model = AutoModelForCausalLM.from_pretrained(finished.rundir.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(finished.rundir.model)

    def nll(number: int) -> float:
        row = record(number)
        user = [{"role": "user", "content": row["question"]}]
        answer = {"role": "assistant", "content": row["answer"]}
        whole = tokenizer.apply_chat_template([*user, answer], return_dict=False)
        start = len(tokenizer.apply_chat_template(user, add_generation_prompt=True, return_dict=False))
        with torch.no_grad():
            logp = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        return -float(np.mean([float(logp[t - 1, whole[t]]) for t in range(start, len(whole))]))

    members, holdout = ([nll(i) for i in part] for part in (range(20, 28), range(12, 20)))
    scores = finished.read("scores.json")["unlearned"]
    beaten = np.mean([(m > h) + 0.5 * (m == h) for m in members for h in holdout])
    assert scores["mia/auc_nll"] == pytest.approx(beaten, abs=1e-9)
    probability = np.mean([math.exp(-nll(i)) for i in range(30, 34)])
    assert scores["tofu/forget/probability"] == pytest.approx(probability, abs=1e-4)
