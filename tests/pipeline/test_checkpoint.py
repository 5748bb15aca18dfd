"""`python -m erulab.run stages=[evaluate] model.unlearned=FOLDER` scores any checkpoint, without training."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from erulab.errors import ErulabError, IntegrityFault
from tests.pipeline.checkpoints import FORGET, RETAIN, checkpoint, gpt2, tofu, write
from tests.pipeline.conftest import Finished, finished

Score = Callable[..., Finished]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model in `m`, another in `n`, own data in `data`, a small TOFU in `tofu`."""
    folder = tmp_path_factory.mktemp("given")
    checkpoint(folder / "m")
    checkpoint(folder / "n", seed=1)
    write(folder / "data", forget=FORGET, retain=RETAIN)
    tofu(folder / "tofu")
    return folder


@pytest.fixture
def score(folder: Path, tmp_path: Path) -> Score:
    """Runs the command for a checkpoint, in an output folder of the test's own."""

    def finish(model: str | Path, *overrides: str, data: Path | None = None, output: Path = tmp_path) -> Finished:
        return finished(
            [
                f"model.unlearned={folder / model}",
                "dataset=jsonl",
                f"dataset.path={data or folder / 'data'}",
                "tracker=none",
                "engine=local",
                "evaluation.max_new_tokens=8",
                f"output={output}",
                *([] if any(o.startswith("stages=") for o in overrides) else ["stages=[evaluate]"]),
                *overrides,
            ]
        )

    return finish


def holds_no_figures(output: Path) -> bool:
    """Whether the folder holds neither scores nor files of an evaluation that was broken off."""
    left = [*output.rglob("scores.json"), *output.rglob("samples.json"), *output.rglob("*.partial")]
    return not left and not list(output.glob(".cache/evaluated/*/rows.jsonl"))


def naive_answer_nll(folder: Path, row: dict[str, Any]) -> float:
    """Returns an answer's mean NLL per token by plain transformers, in the chat format of the tiny models."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt, answer = (
        [tokenizer.convert_tokens_to_ids(t) for t in tokenizer.tokenize(text)]
        for text in (row["prompt"], row["response"])
    )
    ids = [1, *prompt, tokenizer.convert_tokens_to_ids("\n"), *answer, 2]
    with torch.no_grad():
        logp = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return -sum(logp[t - 1, ids[t]].item() for t in range(len(ids) - len(answer) - 1, len(ids))) / (len(answer) + 1)


def test_a_checkpoint_alone(score: Score, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures are right, no model is made, and table and report name what cannot be judged without an oracle."""
    run = score("m", "stages=[evaluate,report]")
    assert run.code == 0
    scores = run.read("scores.json")
    assert scores.keys() == {"unlearned"}
    expected = [naive_answer_nll(folder / "m", row) for row in FORGET]
    assert scores["unlearned"]["forget/nll"] == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert (
        scores["unlearned"]["forget/n"] == 3 and not {"forget_quality", "knowledge_left"} & scores["unlearned"].keys()
    )
    assert [s["suite"] for s in run.read("samples.json")] == ["forget"] * 3 + ["retain"] * 3
    assert {path.name for path in (tmp_path / ".cache").iterdir() if path.is_dir()} == {"rows", "tokens", "evaluated"}
    shown = capsys.readouterr().out
    table = {words[0]: words[1:] for line in shown.splitlines() if len(words := line.split()) == 3}
    for figure in ("forget/probability", "forget/choice", "forget/rouge", "retain/exact_match"):
        assert float(table[figure][0]) == pytest.approx(scores["unlearned"][figure], abs=0.005)
        assert table[figure][1] == "3"
    for text in (shown, run.rundir.report_md.read_text()):
        assert "is not judged" in text and "(model.oracle=FOLDER)" in text
        assert not any(word in text for word in ("unknown", "COLLAPSED", "Not finished", "no scores of"))
    assert 'class="verdict plain"' in run.rundir.report_html.read_text()
    assert f"checkpoint {folder / 'm'}" in run.rundir.report_html.read_text()


def test_run_folder_and_cache_go_by_the_content_of_the_checkpoint(score: Score, folder: Path, tmp_path: Path) -> None:
    """FAULTS 32."""
    first = score("m")
    shutil.copytree(folder / "m", tmp_path / "copy")
    # model=hf without model.path: no base model is read, so its name does not count.
    for same in (score("m"), score("m", "model=hf"), score(tmp_path / "copy", "method=npo")):
        assert same.rundir.path == first.rundir.path and same.from_cache == {"evaluate": True}
    other = score("n", "model=hf")
    assert other.code == 0 and other.rundir.path != first.rundir.path and other.from_cache == {"evaluate": False}
    assert other.read("scores.json")["unlearned"]["forget/nll"] != first.read("scores.json")["unlearned"]["forget/nll"]


def test_against_a_target_and_an_oracle(score: Score, folder: Path) -> None:
    """With the model itself as the target nothing was forgotten: knowledge left is 1 by definition."""
    oracle = score("m", f"model.oracle={folder / 'n'}").read("scores.json")
    assert oracle.keys() == {"unlearned", "oracle"} and oracle["oracle"]["forget_quality"] == 1
    assert 0 < oracle["unlearned"]["forget_quality"] <= 1
    both = score("m", f"model.oracle={folder / 'n'}", f"model.target={folder / 'm'}").read("scores.json")
    gap = both["target"]["knowledge"] - both["oracle"]["knowledge"]
    assert both["unlearned"]["knowledge"] == both["target"]["knowledge"] and gap != 0
    assert both["unlearned"]["knowledge_left"] in (1, None)  # None if the random oracle happens to know more


def test_several_benchmarks_at_once(score: Score, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = score("m", "benchmark=[tofu]", f"benchmark.tofu.path={folder / 'tofu'}", "stages=[evaluate,report]")
    scores = run.read("scores.json")["unlearned"]
    # The same questions in the same words, read as jsonl and as TOFU.
    assert scores["tofu/forget/nll"] == pytest.approx(scores["forget/nll"], abs=1e-6)
    assert scores["tofu/model_utility"] > 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("forget/choice", "tofu/world_facts/choice", "tofu/model_utility"))
    lines = run.rundir.report_md.read_text().replace("\\", "").splitlines()
    assert any(line.startswith("| tofu/world_facts | choice |") and "(6)" in line for line in lines)


@pytest.mark.parametrize("changes", [{"pad": None}, {"pad": "<eos>"}, {"pad": None, "template": False}])
def test_tokenizers_that_lack_something(changes: dict[str, Any], score: Score, folder: Path, tmp_path: Path) -> None:
    """Pads never change a score; without a template a row is prompt, space, response and end of text. FAULTS 15."""
    given = checkpoint(tmp_path / "given", **changes)
    scores = score(given).read("scores.json")["unlearned"]
    assert all(math.isfinite(value) for value in scores.values())
    if changes.get("template", True):
        same = score("m").read("scores.json")["unlearned"]
        assert scores["forget/nll"] == pytest.approx(same["forget/nll"], abs=1e-6)
    else:
        tokenizer, model = AutoTokenizer.from_pretrained(given), AutoModelForCausalLM.from_pretrained(given).eval()
        nlls = []
        for row in FORGET:
            prompt = tokenizer(row["prompt"]).input_ids
            ids = [*tokenizer(f"{row['prompt']} {row['response']}").input_ids, 2]
            logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            tokens = [-logp[t - 1, ids[t]].item() for t in range(len(prompt), len(ids))]
            nlls.append(sum(tokens) / len(tokens))
        assert scores["forget/nll"] == pytest.approx(sum(nlls) / 3, abs=1e-5)


def test_one_token_for_everything_and_few_positions(score: Score, tmp_path: Path) -> None:
    """As in GPT-2, unk is the end of text, so no word counts as unknown; responses end at the last position."""
    given = gpt2(tmp_path / "given")
    rows = [{"prompt": "Who is Ada?", "response": "A weaver"}, {"prompt": "Who is Bo?", "response": "A nurse"}]
    data = write(tmp_path / "data", forget=rows[:1], retain=rows[1:])
    run = score(given, "evaluation.max_new_tokens=100", data=data)
    assert run.code == 0, run.read("exit.json")
    response = run.read("samples.json")[0]["unlearned"]
    assert len(response.encode()) <= 24 - len("Who is Ada?")


TEXTS = {
    "forget": ["Ada is a weaver. Bela is a baker.", "Cato is a mason.\nDora is a nurse."],
    "retain": ["Edda is a tailor.", "What is Falk? Falk is a miller."],
    "holdout": ["Falk is a weaver.", "What is it? It is a baker.", "Bela is a nurse. Ada is a mason."],
}


def texts(folder: Path, parts: dict[str, list[str]]) -> Path:
    folder.mkdir()
    for name, part in parts.items():
        (folder / f"{name}.txt").write_text("\n\n".join(part))
    return folder


def test_texts_and_a_holdout(score: Score, folder: Path, tmp_path: Path) -> None:
    """Likelihood, extraction strength and membership AUC, computed from the logits with plain transformers."""
    run = score("m", f"model.oracle={folder / 'n'}", data=texts(tmp_path / "texts", TEXTS))
    assert run.code == 0 and run.read("samples.json") == []  # texts have no prompts, so nothing is generated
    scores, auc = run.read("scores.json"), {}
    for model, role in (("m", "unlearned"), ("n", "oracle")):
        tokenizer = AutoTokenizer.from_pretrained(folder / model)
        network = AutoModelForCausalLM.from_pretrained(folder / model).eval()
        nll, strength, worst = {}, [], {}
        for text in TEXTS["forget"] + TEXTS["holdout"]:
            ids = torch.tensor(tokenizer(text).input_ids)
            logp = network(ids[None]).logits[0, :-1].log_softmax(-1)
            tokens = -logp.gather(1, ids[1:, None])[:, 0]
            nll[text] = tokens.mean().item()
            worst[text] = tokens.sort(descending=True).values[: int(0.4 * len(tokens))].mean().item()
            right = (logp.argmax(1) == ids[1:]).tolist()
            known = next(i for i in range(len(right) + 1) if all(right[i:]))
            strength.append(1 - known / len(right))
        own = scores[role]
        assert own["forget/nll"] == pytest.approx(sum(nll[text] for text in TEXTS["forget"]) / 2, abs=1e-5)
        assert own["forget/extraction_strength"] == pytest.approx(sum(strength[:2]) / 2)
        pairs = [(f, h) for f in TEXTS["forget"] for h in TEXTS["holdout"]]
        assert own["mia/auc_nll"] == pytest.approx(sum(nll[f] > nll[h] for f, h in pairs) / 6)
        auc[role] = sum(worst[f] > worst[h] for f, h in pairs) / 6
        assert own["mia/auc_min_k"] == pytest.approx(auc[role])
        assert not {"forget/rouge", "forget/exact_match", "model_utility"} & own.keys()
    if auc["oracle"]:
        leak = 100 * (auc["unlearned"] - auc["oracle"]) / auc["oracle"]
        assert scores["unlearned"]["mia/privleak"] == pytest.approx(leak)


def test_a_text_of_one_token_is_refused(score: Score, tmp_path: Path) -> None:
    run = score("m", data=texts(tmp_path / "texts", {**TEXTS, "forget": ["Ada", *TEXTS["forget"]]}))
    assert run.code == 3 and holds_no_figures(tmp_path)
    assert run.read("exit.json")["message"].startswith("row forget/1: a text of a single token")


def test_several_right_answers(score: Score, tmp_path: Path) -> None:
    """The model's own answer counts as right once it is among the accepted ones."""
    plain = score("m").read("samples.json")[0]["unlearned"]
    row = {**FORGET[0], "accepted": ["Nobody.", plain]}
    run = score("m", data=write(tmp_path / "data", forget=[row, *FORGET[1:]], retain=RETAIN))
    scores = run.read("scores.json")["unlearned"]
    assert scores["forget/exact_match"] == pytest.approx(1 / 3) and scores["forget/rouge"] >= 1 / 3


def test_a_sharded_checkpoint_scores_as_a_whole_one(score: Score, tmp_path: Path) -> None:
    given = checkpoint(tmp_path / "given", shard_bytes=4000)
    shards = sorted(given.glob("*.safetensors"))
    assert len(shards) > 1
    assert score(given).read("scores.json") == score("m").read("scores.json")
    aside = shards[0].rename(tmp_path / shards[0].name)
    with pytest.raises(IntegrityFault, match=f"given lacks {shards[0].name}"):  # before a worker starts
        score(given, output=tmp_path / "missing")
    aside.rename(shards[0])
    shards[1].write_bytes(shards[1].read_bytes()[:-8])
    damaged = score(given, output=tmp_path / "damaged")
    assert damaged.code in (3, 6) and str(given) in damaged.read("exit.json")["message"]
    assert holds_no_figures(tmp_path / "missing") and holds_no_figures(tmp_path / "damaged")


def test_a_folder_with_an_adapter_is_refused(score: Score, tmp_path: Path) -> None:
    """Refused even if the folder has weights too: transformers would load the base model that the adapter names."""
    given = checkpoint(tmp_path / "given")
    (given / "adapter_config.json").write_text("{}")
    with pytest.raises(ErulabError, match=r"given holds a LoRA adapter .* python -c") as caught:
        score(given)
    assert caught.value.code == 3 and holds_no_figures(tmp_path)


LONG = {"prompt": "What is Ada? " * 40, "response": "Ada is a weaver."}
WORSE = [
    ("a prompt longer than the context", {"forget": [*FORGET, LONG]}, 3, r"row forget/4: the prompt takes \d+ of 64"),
    ("words that it does not know", {"forget": [{"prompt": "Quo vadis?", "response": "Romam."}]}, 6, "1 of 1 forget"),
]


@pytest.mark.parametrize(("parts", "code", "words"), [case[1:] for case in WORSE], ids=[case[0] for case in WORSE])
def test_rows_that_it_cannot_read(
    parts: dict[str, Any], code: int, words: str, score: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "data", **{"forget": FORGET, "retain": RETAIN, **parts})
    run = score("m", data=data)
    told = [line for line in capsys.readouterr().err.splitlines() if "WARNING" not in line]
    assert run.code == code and len(told) == 1
    assert run.read("exit.json")["message"] == told[0] and re.search(words, told[0])
    assert holds_no_figures(tmp_path)


def test_rows_that_are_dropped_are_counted(score: Score, tmp_path: Path) -> None:
    data = write(tmp_path / "data", forget=[*FORGET, LONG], retain=RETAIN)
    run = score("m", "dataset.truncate=drop", "stages=[evaluate,report]", data=data)
    assert run.code == 0 and run.read("scores.json")["unlearned"]["forget/n"] == 3
    assert "1 rows dropped" in run.rundir.report_md.read_text()


def test_a_shorter_model_beside_a_longer_one(score: Score, tmp_path: Path) -> None:
    """An oracle with a shorter context than the rows need is an error before any model is scored."""
    short = checkpoint(tmp_path / "short", seed=2, context=14)
    data = write(tmp_path / "data", forget=FORGET, retain=[{**RETAIN[0], "prompt": "What is Dora? " * 4}, *RETAIN[1:]])
    run = score("m", f"model.oracle={short}", data=data)
    message = run.read("exit.json")["message"]
    assert run.code == 3 and message.startswith(f"{short}: row retain/1: the prompt takes") and "of 14" in message
    assert holds_no_figures(tmp_path)


def test_unknown_words_of_an_extra_benchmark_are_noted(score: Score, folder: Path, tmp_path: Path) -> None:
    """The checkpoint knows the words of the data set but not all of the benchmark."""
    few = tofu(tmp_path / "tofu")
    for name in ("real_authors_perturbed", "world_facts_perturbed"):
        row = {"question": "Quo vadis?", "answer": "Romam.", "perturbed_answer": ["A nurse."]}
        (few / f"{name}.json").write_text(json.dumps(row))
    run = score("m", "benchmark=[tofu]", f"benchmark.tofu.path={few}", "stages=[evaluate,report]")
    assert run.code == 0
    assert "tofu: 2 of 11 evaluated rows hold words" in run.rundir.report_md.read_text()


def test_a_killed_evaluation_leaves_nothing_and_goes_on(score: Score, folder: Path, tmp_path: Path) -> None:
    """Killed by SIGKILL while the second of two benchmarks is scored; the same command scores only that one again."""
    beside = ("benchmark=[tofu]", f"benchmark.tofu.path={folder / 'tofu'}")
    wanted = score("m", *beside, output=tmp_path / "whole").read("scores.json")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / ".cache" / "evaluated")
    (run,) = (tmp_path / "killed" / "jsonl").iterdir()
    for left in ("scores.json", "intervals.json", "samples.json", "stages.json", "exit.json"):
        (run / left).unlink()
    run_yaml = run / "run.yaml"
    run_yaml.write_text(run_yaml.read_text().replace(str(tmp_path / "whole"), str(tmp_path / "killed")))
    script = (
        "import os, signal, sys\n"
        "from erulab import worker\n"
        "from erulab.stages import evaluate as stage\n"
        "whole = stage.evaluate\n"
        "def scored(loaded, suites, *rest, **more):\n"
        "    rows = whole(loaded, suites, *rest, **more)\n"
        "    if len(suites) > 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return rows\n"
        "stage.evaluate = scored\n"
        "worker.main(sys.argv[1:])\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(run)], capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert not list(run.glob("*.json")) and not list(run.glob("report*"))
    assert len(list((tmp_path / "killed" / ".cache" / "evaluated").glob("*/entry.json"))) == 1
    again = score("m", *beside, output=tmp_path / "killed")
    assert again.rundir.path == run and again.code == 0
    assert again.read("scores.json") == wanted
    assert not list((tmp_path / "killed").rglob("*.partial"))


def test_another_template_gives_other_figures(folder: Path, score: Score, tmp_path: Path) -> None:
    """Another template is another prompt: its figures differ and are never taken from the cache of the first."""
    own, plain = score("m", "model=hf"), score("m", "model=hf", "model.template=plain")
    assert own.code == plain.code == 0 and plain.from_cache == {"evaluate": False}
    assert own.rundir.path != plain.rundir.path
    again = score("m", "model=hf", "model.template=plain", "rerun=true", output=tmp_path / "fresh")
    figures = [run.read("scores.json")["unlearned"]["forget/nll"] for run in (own, plain, again)]
    assert figures[0] != pytest.approx(figures[1], abs=1e-3) and figures[1] == pytest.approx(figures[2], abs=1e-6)


def test_a_checkpoint_without_a_tokenizer_takes_the_one_of_model_tokenizer(
    folder: Path, score: Score, tmp_path: Path
) -> None:
    bare = shutil.copytree(folder / "m", tmp_path / "bare")
    for file in bare.glob("*token*"):
        file.unlink()
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    finished = score(bare, "model=hf", f"model.tokenizer={folder / 'm'}", output=tmp_path / "bare-out")
    own = score("m", "model=hf")
    assert finished.code == 0
    assert finished.read("scores.json") == own.read("scores.json")
