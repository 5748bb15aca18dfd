"""benchmark=lm_eval with the harness itself: figures of tasks on local files against ten lines of arithmetic."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.models.conftest import byte_level, tiny_model

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-lm-eval" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="there is no lm-evaluation-harness in .venv-lm-eval; launch/test.sh installs it"
)

NAMES = ("Ada", "Bela", "Cora", "Dario", "Edda", "Fynn", "Gil", "Hana", "Ivo", "Jule", "Kai", "Lene")
PLACES = ("by", "the", "and")  # one token each: the random model chooses by the question
TEMPLATE = "{% for m in messages %}<|start|>{{ m.role }}: {{ m.content }}<|eot|>{% endfor %}<|start|>assistant:"
SYSTEM = "Answer in one word."
NEW_TOKENS = 6


def question(name: str) -> str:
    return f"Question: Where was {name} born?\nAnswer:"


class Asked:
    """The model that is asked, and its answers by plain forwards of one sequence each."""

    def __init__(self) -> None:
        self.tokenizer: PreTrainedTokenizerFast = byte_level()
        self.tokenizer.chat_template = TEMPLATE
        self.model: PreTrainedModel = tiny_model("llama", len(self.tokenizer), max_position_embeddings=512)

    def chat(self, text: str) -> str:
        return f"<|start|>system: {SYSTEM}<|eot|><|start|>user: {text}<|eot|><|start|>assistant:"

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def most_probable(self, prompt: str, delimiter: str = " ") -> int:
        """The place with the largest log-probability after the prompt, summed over its tokens."""
        sums = []
        for place in PLACES:
            ids, start = self.ids(f"{prompt}{delimiter}{place}"), len(self.ids(prompt))
            with torch.no_grad():
                logs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            sums.append(sum(float(logs[i - 1, ids[i]]) for i in range(start, len(ids))))
        return max(range(len(PLACES)), key=sums.__getitem__)

    def greedy(self, prompt: str) -> str:
        ids = self.ids(prompt)
        start = len(ids)
        for _ in range(NEW_TOKENS):
            with torch.no_grad():
                ids.append(int(self.model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == self.tokenizer.eos_token_id:
                break
        return self.tokenizer.decode(ids[start:], skip_special_tokens=True).split("\n")[0]


def write_tasks(folder: Path, asked: Asked) -> None:
    """A multiple-choice task, a generated one that the model answers for even questions, their group, an unsafe one."""
    places = [{"q": question(name), "choices": PLACES, "answer": i % 3} for i, name in enumerate(NAMES)]
    generated = [
        {"q": question(name), "answer": asked.greedy(question(name)) if i % 2 else "nowhere in particular"}
        for i, name in enumerate(NAMES)
    ]
    common = {"dataset_path": "json", "test_split": "test", "doc_to_text": "{{q}}", "doc_to_target": "{{answer}}"}
    metric = {"aggregation": "mean", "higher_is_better": True}
    tasks: dict[str, dict[str, Any]] = {
        "places": common
        | {
            "output_type": "multiple_choice",
            "doc_to_choice": "{{choices}}",
            "metric_list": [{"metric": "acc", **metric}],
            "metadata": {"version": 2.0},
        },
        "born": common
        | {
            "output_type": "generate_until",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": NEW_TOKENS, "do_sample": False},
            "filter_list": [{"name": "whole", "filter": [{"function": "take_first"}]}],
            "metric_list": [{"metric": "exact_match", **metric}],
            "metadata": {"version": 1.0},
        },
    }
    for name, rows in (("places", places), ("born", generated)):
        data = folder / f"{name}.jsonl"
        data.write_text("\n".join(json.dumps(row) for row in rows))
        content = tasks[name] | {"task": f"own_{name}", "dataset_kwargs": {"data_files": {"test": str(data)}}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        if name == "places":
            (folder / "unsafe.yaml").write_text(yaml.safe_dump(content | {"task": "own_unsafe", "unsafe_code": True}))
    group = {"group": "own_group", "task": ["own_places", "own_born"], "metadata": {"version": 1}}
    (folder / "group.yaml").write_text(yaml.safe_dump(group))


@pytest.fixture(scope="module")
def asked() -> Asked:
    return Asked()


@pytest.fixture(scope="module")
def answer(asked: Asked, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process with the harness answers: scores of three settings, and refusals."""
    folder = tmp_path_factory.mktemp("harness")
    asked.model.save_pretrained(folder / "model")
    asked.tokenizer.save_pretrained(folder / "model")
    (folder / "tasks").mkdir()
    write_tasks(folder / "tasks", asked)
    options = {"tasks": ["own_group"], "include_path": str(folder / "tasks"), "batch_size": 4}
    settings: dict[str, dict[str, Any]] = {
        "plain": {},
        "chat": {"tasks": ["own_places"], "apply_chat_template": True},
        "limited": {"tasks": ["own_places"], "limit": 5},
    }
    request = {
        "scored": {
            name: {"model": str(folder / "model"), "options": options | more, "system": SYSTEM}
            for name, more in settings.items()
        },
        "refused": ["own_place", "own_unsafe", "own_group+own_born", "gsm8k"],
    }
    (folder / "request.json").write_text(json.dumps(request))
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("harness_process.py"), folder / "request.json", folder / "answer.json"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return found


def test_accuracy_is_the_share_of_places_that_a_forward_finds(asked: Asked, answer: dict[str, Any]) -> None:
    right = [asked.most_probable(question(name)) == i % 3 for i, name in enumerate(NAMES)]
    assert 0 < sum(right) < len(right)
    figures = answer["plain"]["figures"]
    assert figures["lm_eval/own_places/n"] == len(NAMES)
    assert figures["lm_eval/own_places/acc"] == pytest.approx(sum(right) / len(right))
    # The standard error of a mean of zeros and ones, with n - 1.
    share = sum(right) / len(right)
    stderr = (share * (1 - share) / (len(right) - 1)) ** 0.5
    assert figures["lm_eval/own_places/acc/stderr"] == pytest.approx(stderr)
    low, high = answer["plain"]["intervals"]["lm_eval/own_places/acc"]
    assert (low, high) == pytest.approx((max(share - 1.96 * stderr, 0), min(share + 1.96 * stderr, 1)))


def test_generated_answers_are_the_models_greedy_ones(answer: dict[str, Any]) -> None:
    assert answer["plain"]["figures"]["lm_eval/own_born/exact_match,whole"] == 0.5


def test_the_chat_template_and_the_system_turn_are_put_around_prompts(asked: Asked, answer: dict[str, Any]) -> None:
    # In a chat the harness writes no space between the opening of the assistant's turn and the choice.
    found = [asked.most_probable(asked.chat(question(name)), delimiter="") for name in NAMES]
    right = [place == i % 3 for i, place in enumerate(found)]
    accuracy = answer["chat"]["figures"]["lm_eval/own_places/acc"]
    assert accuracy == pytest.approx(sum(right) / len(right))
    assert accuracy != answer["plain"]["figures"]["lm_eval/own_places/acc"]


def test_a_limit_takes_the_first_questions(asked: Asked, answer: dict[str, Any]) -> None:
    right = [asked.most_probable(question(name)) == i % 3 for i, name in enumerate(NAMES[:5])]
    assert answer["limited"]["figures"]["lm_eval/own_places/n"] == 5
    assert answer["limited"]["figures"]["lm_eval/own_places/acc"] == pytest.approx(sum(right) / 5)


def test_versions_stand_beside_the_figures_and_in_the_key(answer: dict[str, Any]) -> None:
    assert answer["plain"]["details"]["tasks"]["own_places"] == {"version": 2.0, "num_fewshot": 0, "n": len(NAMES)}
    content = answer["plain"]["content"]
    assert content.keys() == {"own_places", "own_born"} and content["own_born"]["version"] == 1.0
    assert content["own_places"] == answer["chat"]["content"]["own_places"]
    assert content["own_places"]["questions"] != content["own_born"]["questions"]
    assert answer["plain"]["identity"] != answer["chat"]["identity"]


@pytest.mark.parametrize(
    ("name", "when", "words"),
    [
        ("own_place", 0, ["ConfigError", "no task own_place", "did you mean own_places", "include_path"]),
        ("own_unsafe", 0, ["ConfigError", "own_unsafe runs code that the model writes"]),
        ("own_unsafe", 1, ["ConfigError", "own_unsafe runs code that the model writes"]),
        ("own_group+own_born", 1, ["ConfigError", "names own_born twice"]),
        ("gsm8k", 1, ["DataError", "gsm8k cannot be loaded", "hub's cache"]),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_line(
    name: str, when: int, words: list[str], answer: dict[str, Any]
) -> None:
    message = answer["refusals"][name][when]
    assert all(word in message for word in words), message
    assert "\n" not in message
