"""RWKU end to end on a few of its rows, with a random model, compared with plain transformers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from erulab.data import rwku_prompts  # compared with its source in tests/data/test_rwku_prompts.py
from tests.data.test_rwku import RWKU
from tests.models.conftest import byte_level
from tests.pipeline.conftest import Finished, Runner

pytestmark = pytest.mark.skipif(not RWKU.is_dir(), reason=f"RWKU's files are not at {RWKU}")

TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
STAGES = "stages=[unlearn,evaluate,report]"
WHOLE = ("forget_level1", "forget_level2", "forget_level3")


def random_model(folder: Path, seed: int) -> Path:
    """Writes a random model with byte-level tokens and a context of 4,096; returns its folder."""
    tokenizer = byte_level()
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "llama",
        initializer_range=0.5,
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_size=16,
        vocab_size=400,
        intermediate_size=16,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=4096,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds all forget probes, and the two shortest rows of every other file."""
    folder = tmp_path_factory.mktemp("rwku")
    (folder / "1_Stephen_King").mkdir()
    for file in (RWKU / "1_Stephen_King").glob("*.json"):
        rows = json.loads(file.read_text())
        kept = rows if file.stem in WHOLE else sorted(rows, key=lambda row: len(json.dumps(row)))[:2]
        (folder / "1_Stephen_King" / file.name).write_text(json.dumps(kept, indent=1))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("model"), 0)


@pytest.fixture(scope="module")
def forget(run: Runner, few: Path, model: Path) -> Runner:
    """Runs on these files, with the random model as the target."""

    def finish(*overrides: str, folder: Path | None = None) -> Finished:
        return run(
            "model=hf",
            f"model.path={model}",
            f"model.target={model}",
            "dataset=rwku",
            f"dataset.path={few}",
            "method.retain=none",
            "trainer.global_batch=2",
            *overrides,
            folder=folder,
        )

    return finish


@pytest.fixture(scope="module")
def npo(forget: Runner) -> Finished:
    finished = forget("method=npo", "attack=none", STAGES)
    assert finished.code == 0, finished.read("exit.json")
    return finished


@pytest.fixture(scope="module")
def unlearned(npo: Finished) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    folder = npo.rundir.model
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def records(few: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((few / "1_Stephen_King" / f"{name}.json").read_text())
    return found


def test_all_figures_are_there_but_those_that_need_an_oracle(npo: Finished) -> None:
    scores = npo.read("scores.json")
    assert scores.keys() == {"target", "unlearned"}
    counts = {name: int(value) for name, value in scores["unlearned"].items() if name.endswith("/n")}
    two = (
        "mia_forget",
        "neighbor_fb",
        "neighbor_qa",
        "mia_retain",
        "mmlu",
        "bbh",
        "bbh_as_published",
        "truthfulqa",
        "triviaqa",
        "fluency",
    )
    assert [counts[f"{name}/n"] for name in two] == [2] * len(two)
    probes = {"forget_fb": 8, "forget_qa": 10, "forget_aa": 29, "forget_all": 47, "neighbor_all": 4}
    assert {name: counts[f"{name}/n"] for name in probes} == probes
    assert sum(n for name, n in counts.items() if name.startswith("forget_aa_")) == 29
    assert scores["unlearned"].keys() >= {
        "mia/auc_nll",
        "mia/auc_zlib",
        "mia/auc_min_k",
        "mia/auc_min_k_plus_plus",
        "fluency/entropy",
        "triviaqa/f1",
        "bbh/final_answer",
    }
    assert not {"knowledge_left", "forget_quality", "mia/privleak"} & scores["unlearned"].keys()
    assert "no scores of the oracle" in npo.rundir.report_md.read_text()
    notes = npo.read("stages.json")["data"]["notes"]
    assert notes[0] == "1 of RWKU's 200 targets: Stephen King"


def test_answers_are_those_of_plain_transformers(
    npo: Finished, few: Path, unlearned: tuple[PreTrainedModel, PreTrainedTokenizerFast]
) -> None:
    """The first probes, prompted as RWKU's code does: chat template, "Answer:" and `generate`."""
    model, tokenizer = unlearned
    samples = [sample for sample in npo.read("samples.json") if sample["suite"] == "forget_qa"]
    assert len(samples) == 5
    for sample, record in zip(samples, records(few, "forget_level2"), strict=False):
        asked = f"Please briefly answer the following question.\nQuestion: {record['query']}\n"
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(prompt + "Answer:", return_tensors="pt", add_special_tokens=False).input_ids
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=30,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=[0, 2],
        )[0, ids.shape[1] :]
        answer = tokenizer.decode(out, skip_special_tokens=True)
        assert sample["unlearned"] == answer.split("\n")[0]


def test_letters_and_texts_have_the_scores_of_plain_transformers(
    npo: Finished, few: Path, unlearned: tuple[PreTrainedModel, PreTrainedTokenizerFast]
) -> None:
    model, tokenizer = unlearned
    scores = npo.read("scores.json")["unlearned"]
    losses = []
    for record in records(few, "forget_mia"):
        ids = tokenizer(record["text"], return_tensors="pt").input_ids
        losses.append(model(input_ids=ids, labels=ids).loss.item())
    assert scores["mia_forget/nll"] == pytest.approx(sum(losses) / 2, abs=1e-4)
    right = []
    for record in records(few, "truthful"):
        prompt = (
            tokenizer.apply_chat_template(
                [{"role": "user", "content": rwku_prompts.truthfulqa_prompt(record["question"])}],
                tokenize=False,
                add_generation_prompt=True,
            )
            + "A:"
        )
        opening, sums = len(tokenizer(prompt, add_special_tokens=False).input_ids), []
        for choice in record["mc1_targets"]["choices"]:
            ids = tokenizer(f"{prompt} {choice}", return_tensors="pt", add_special_tokens=False).input_ids
            logp = model(input_ids=ids).logits[0].double().log_softmax(-1)
            sums.append(sum(logp[t - 1, ids[0, t]].item() for t in range(opening, ids.shape[1])))
        right.append(float(sums[0] > max(sums[1:])))
    assert scores["truthfulqa/accuracy"] == sum(right) / 2


def test_chosen_suites_are_measured_alone_and_training_is_not_repeated(forget: Runner, npo: Finished) -> None:
    finished = forget("method=npo", "attack=none", STAGES, "evaluation.suites=[forget_aa*,rwku/forget_fb]")
    scores = finished.read("scores.json")["unlearned"]
    assert finished.code == 0 and finished.from_cache["unlearn"]
    suites = {name.split("/")[0] for name in scores if not name.startswith("cost/")}
    assert suites - {"forget_aa", "forget_fb"} and all(name.startswith(("forget_aa", "forget_fb")) for name in suites)
    assert scores["forget_aa/n"] == 29 and scores["forget_fb/n"] == 8  # no forget_all: it needs forget_qa too
    assert {sample["suite"] for sample in finished.read("samples.json")} == suites - {"forget_aa"}
    whole = npo.read("scores.json")["unlearned"]
    assert scores["forget_aa/rwku_recall"] == whole["forget_aa/rwku_recall"]


@pytest.mark.parametrize(
    ("overrides", "figure"),
    [
        (("method=dpo", "method.pairs=fabricated", "dataset.train=pair"), "method/paired_nll"),
        (("method=idk", "dataset.train=refusal"), "method/refusal_nll"),
    ],
)
def test_the_first_step_sees_the_fabricated_text_or_the_refusal(
    overrides: tuple[str, ...], figure: str, forget: Runner, few: Path, model: Path
) -> None:
    """The NLL in metrics.jsonl is the model's on the text in RWKU's file, computed by plain transformers."""
    finished = forget(*overrides, "attack=none", "stages=[unlearn]", "trainer.steps=1")
    assert finished.code == 0, finished.read("exit.json")
    reads, tokenizer = AutoModelForCausalLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    nll = []
    name = "pair" if figure == "method/paired_nll" else "reject"
    for record in records(few, name):
        asked, answer = (
            (record["prompt"], record["response"][0]) if name == "pair" else (record["instruction"], record["output"])
        )
        turns = [{"role": "user", "content": asked}]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        whole = (prompt + tokenizer(answer, add_special_tokens=False).input_ids + [2])[:512]
        logp = reads(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(-1)
        tokens = [-logp[t - 1, whole[t]].item() for t in range(len(prompt), len(whole))]
        nll.append(math.fsum(tokens) / len(tokens))
    (line,) = [json.loads(line) for line in finished.rundir.metrics_jsonl.read_text().splitlines()]
    assert line[figure] == pytest.approx(sum(nll) / 2, rel=1e-4)


def test_attacks_are_judged_by_generated_answers(
    forget: Runner, tmp_path_factory: pytest.TempPathFactory, npo: Finished
) -> None:
    """With a given oracle: RWKU has no wrong answers for log-odds, so recall is attacked."""
    oracle = random_model(tmp_path_factory.mktemp("oracle"), 1)
    asked = (
        "method=npo",
        f"model.oracle={oracle}",
        "attack=relearn",
        "attack.relearn.steps=1",
        "evaluation.suites=[forget_fb,forget_aa_role_play,mmlu]",
    )
    finished = forget(*asked, "attack.relearn.split=all")
    assert finished.code == 0, finished.read("exit.json")
    rows = {row["metric"]: row for row in finished.read("attacks.json")}
    assert rows.keys() == {"forget_fb/rwku_recall", "forget_aa_role_play/rwku_recall", "mmlu/accuracy"}
    assert (rows["forget_fb/rwku_recall"]["n"], rows["mmlu/accuracy"]["n"]) == (8, 2)
    whole = npo.read("scores.json")["unlearned"]
    assert rows["forget_fb/rwku_recall"]["unlearned"] == whole["forget_fb/rwku_recall"]
    # Both models are random, so the figure has no gap; the report says why there is no verdict.
    assert "robustness: unknown, the only attack does not count: relearn" in finished.rundir.report_md.read_text()


def test_an_attack_with_figures_of_its_own_needs_no_generation(
    forget: Runner, tmp_path_factory: pytest.TempPathFactory, npo: Finished
) -> None:
    """Without generation no forget row has a figure; mia and sample bring figures of their own, probe has none."""
    oracle = random_model(tmp_path_factory.mktemp("oracle"), 1)
    finished = forget(
        "method=npo",
        f"model.oracle={oracle}",
        "attack=[mia,probe,sample]",
        "attack.sample.samples=2",
        "attack.sample.k=[1]",
        "attack.sample.max_new_tokens=4",
        "evaluation.generate=false",
    )
    assert finished.code == 0, finished.read("exit.json")
    rows = {(row["attack"], row["metric"]): row for row in finished.read("attacks.json")}
    loss = rows["mia", "mia_forget/mia_loss"]
    auc = finished.read("scores.json")["unlearned"]["mia/auc_nll"]
    assert loss["headline"] and loss["attacked_unlearned"] == pytest.approx(1 - auc, abs=1e-6)
    assert "candidates or options" in rows["probe", "log_odds"]["reason"]
    leaks = [row for (name, metric), row in rows.items() if name == "sample" and metric.endswith("leak_1")]
    assert leaks and all(row["n"] > 0 and 0 <= row["attacked_target"] <= 1 for row in leaks)


@pytest.mark.parametrize(
    ("overrides", "code", "told"),
    [
        (("attack=none", "stages=[oracle]"), 3, "data set rwku has no rows for the oracle to learn"),
        (("attack=quantize",), 3, "data set rwku has no rows for the oracle to learn"),
        (("attack=none", "model.target=null", STAGES), 3, "name the model with model.target=FOLDER_OR_HUB_ID"),
        (("attack=none", STAGES, "evaluation.suites=[forget_f]"), 2, "no such suite (did you mean forget_fb?)"),
        (("attack=relearn", "model.oracle={model}"), 3, "type attack.relearn.split=all"),
        (("attack=quantize", "model.oracle={model}", "evaluation.suites=[forget_fb]"), 3, "leave of a retain"),
        (("attack=quantize", "model.oracle={model}", "evaluation.generate=false"), 3, "see evaluation.suites and"),
    ],
)
def test_impossible_settings_are_an_error_before_anything_is_trained(
    overrides: tuple[str, ...], code: int, told: str, forget: Runner, model: Path, tmp_path: Path
) -> None:
    finished = forget("method=npo", *(o.format(model=model) for o in overrides), folder=tmp_path)
    ended = finished.read("exit.json")
    assert finished.code == ended["code"] == code and told in ended["message"] and "\n" not in ended["message"]
    assert not finished.rundir.metrics_jsonl.exists()
