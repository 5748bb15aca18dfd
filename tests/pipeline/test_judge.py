"""Whole runs with a judge: what it is asked, the figures of its verdicts, and what is asked after an interruption."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from erulab.errors import ConfigError, EnvironmentFault
from erulab.evaluation.judging import endpoint
from erulab.models.loaded import LoadedModel
from erulab.models.loading import save_folder
from erulab.tokens.chat import ChatFormat
from erulab.tokens.templates import TEMPLATES
from tests.models.conftest import byte_level
from tests.pipeline.conftest import Finished, Runner, small
from tests.samples.judge_server import JudgeServer, Reply, serving

KEY = "plain-but-secret-key"
ROOT = Path(__file__).parents[2]
MODELS = ("target", "unlearned", "oracle")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(endpoint, "LOOK_EVERY", 0.02)


def says_what_is_so(request: dict[str, Any]) -> Reply:
    """A judge that finds the fact's words in the response; it says neither yes nor no to a question with "Where"."""
    lines = request["messages"][0]["content"].splitlines()
    data = {name: json.loads(text) for name, _, text in (line.partition(": ") for line in lines) if text[:1] == '"'}
    if data["Question"].startswith("Where"):
        return Reply("That depends.")
    words = data.get("The words of the true answer that carry the fact", data["True answer"])
    return Reply("Yes." if words in data["Response"] else "No.")


def judged_by(server: JudgeServer, *more: str) -> tuple[str, ...]:
    return ("attack=none", f"evaluation.judge.url={server.url}", "evaluation.judge.url_model=m", *more)


def lines_of(finished: Finished) -> list[dict[str, Any]]:
    return [json.loads(line) for line in finished.rundir.judged_jsonl.read_text().splitlines()]


def test_figures_files_and_secrets(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", KEY)
    with serving(says_what_is_so) as server:
        done = run(*judged_by(server, "evaluation.judge.key_variable=JUDGE_API_KEY"))
        assert done.code == 0
        asked = list(server.prompts)
        assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
        again = run(*judged_by(server, "evaluation.judge.key_variable=JUDGE_API_KEY", "evaluation.judge.timeout=9"))
        assert again.rundir.path == done.rundir.path and len(server.requests) == len(asked), "all answers are kept"
    assert done.from_cache["target"] and done.from_cache["unlearn"], "a judge trains nothing anew"

    lines, scores = lines_of(done), done.read("scores.json")
    shown = {line["prompt"] for line in lines if line["answer"] is not None}
    assert shown < set(asked), "beside responses, the judge is asked about answers that are known"
    assert {line["model"] for line in lines} == set(MODELS)
    said = {"Yes.": "yes", "No.": "no", "That depends.": "unjudged", None: "no"}
    assert all(line["verdict"] == said[line["answer"]] for line in lines)
    known = {"yes": 1.0, "no": 0.0}
    for model in MODELS:
        own = [line for line in lines if line["model"] == model]
        suites = {line["suite"] for line in own}
        assert {"forget", "forget_heldout", "retain"} <= suites and "unseen" not in suites
        for suite in suites:
            verdicts = [line["verdict"] for line in own if line["suite"] == suite]
            assert len(verdicts) == scores[model][f"{suite}/n"]
            values = [known[verdict] for verdict in verdicts if verdict in known]
            assert scores[model][f"{suite}/judged"] == pytest.approx(statistics.mean(values))
        facts = defaultdict(list)
        for line in own:
            if line["suite"].startswith("forget"):
                facts[line["fact"]].append(line["verdict"])
        worst = ["yes" in verdicts for verdicts in facts.values() if "yes" in verdicts or "unjudged" not in verdicts]
        assert scores[model]["judged_worst"] == pytest.approx(statistics.mean(worst))
        assert scores[model]["judged_worst/n"] == len(worst)
        for figure in ("judged_worst", "retain/judged"):
            low, high = done.read("intervals.json")[model][figure]
            assert 0 <= low <= scores[model][figure] <= high <= 1 and high - low > 0.05, figure
        assert scores[model]["judged/unjudged"] == sum(line["verdict"] == "unjudged" for line in own) > 0
        # This judge is always right, and silent where a question begins with "Where".
        assert 0 < scores[model]["judged/accepts_right"] < 1 and scores[model]["judged/accepts_wrong"] == 0
    assert 0 < scores["target"]["judged_worst"] > scores["oracle"]["judged_worst"], "the target knows more"
    assert "judged, worst of phrasings" in done.rundir.report_md.read_text()

    for file in done.rundir.path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def test_without_a_judge_nothing_of_it_is_there(first: Finished) -> None:
    assert not first.rundir.judged_jsonl.exists()
    assert not [name for figures in first.read("scores.json").values() for name in figures if "judged" in name]


def test_a_run_that_was_stopped_or_failed_asks_only_the_rest(run: Runner, first: Finished) -> None:
    """Stopped by a signal, then by a server that breaks, then killed in the middle of a line."""
    phase = {"left": 10, "broken": False}

    def reply(request: dict[str, Any]) -> Reply:
        phase["left"] -= 1
        if phase["left"] == 0 and not phase["broken"]:
            os.kill(os.getpid(), signal.SIGINT)
        if phase["left"] < 0 and phase["broken"]:
            return Reply(status=500)
        return says_what_is_so(request)

    with serving(reply) as server:
        typed = judged_by(server, "evaluation.judge.retries=0")
        stopped = run(*typed)
        assert stopped.code == 75 and "stopped while the judge answers" in stopped.read("exit.json")["message"]
        answered = set(server.prompts)
        assert 10 <= len(answered) == len(server.requests)

        phase |= {"left": 5, "broken": True}
        failed = run(*typed)
        assert failed.code == 4 and "HTTP status 500, 1 times" in failed.read("exit.json")["message"]
        assert not failed.rundir.scores_json.exists()
        (partial,) = (Path(first.rundir.path.parents[1]) / ".cache" / "judged").glob("*.partial")
        kept = (partial / "answers.jsonl").read_text().splitlines()
        assert {json.loads(line)["prompt"] for line in kept} >= answered and len(kept) == len(answered) + 5

        cut = json.loads(kept[-1])["prompt"]
        text = (partial / "answers.jsonl").read_text()
        (partial / "answers.jsonl").write_text(text[:-30])
        phase |= {"left": 10**6, "broken": False}
        before = len(server.requests)
        assert run(*typed).code == 0
        later = server.prompts[before:]
    done = {json.loads(line)["prompt"] for line in kept[:-1]}
    assert not done & set(later) and cut in later and len(later) == len(set(later))


def test_a_local_judge(run: Runner, tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = TEMPLATES["plain"]
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=2048)
    folder = tmp_path / "judge"
    save_folder(LoadedModel(GPT2LMHeadModel(config).eval(), tokenizer, ChatFormat(tokenizer, 2048)), folder)
    done = run("attack=none", f"evaluation.judge.model={folder}", "evaluation.batch_tokens=16384")
    assert done.code == 0
    asked = [line for line in lines_of(done) if line["answer"] is not None]
    assert asked and all(line["verdict"] == ("yes" if line["log_odds"] > 0 else "no") for line in asked)
    assert done.read("scores.json")["unlearned"]["judged/unjudged"] == 0
    # A model that cannot read answers everything alike, and the run says so.
    assert "its figures say little; take a larger judge" in done.rundir.run_log.read_text()


def test_of_two_processes_one_asks(first: Finished) -> None:
    """Everything but the verdicts comes from the cache of the first run, which had one process."""
    with serving(says_what_is_so) as server:
        engine = ("engine=zero2", "engine.processes=2", f"output={first.rundir.path.parents[1]}")
        overrides = [o for o in small(judged_by(server, *engine)) if o != "engine=local"]
        done = subprocess.run(
            [sys.executable, "-m", "erulab.run", *overrides], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert server.prompts and len(server.prompts) == len(set(server.prompts))
    assert "asking the judge about" in done.stdout


def test_a_judge_that_is_not_there(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentFault, match="does not exist"):
        run("attack=none", "evaluation.judge.model=./no/such/judge")
    monkeypatch.delenv("JUDGE_API_KEY", raising=False)
    with serving(Reply()) as server, pytest.raises(ConfigError, match="export JUDGE_API_KEY=KEY before"):
        run(*judged_by(server, "evaluation.judge.key_variable=JUDGE_API_KEY"))
