"""The model card: its YAML, figures as scores.json has them, and nothing that belongs to one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from erulab.cards.base import shared_command, without_folders
from erulab.cards.model_card import model_card
from erulab.reporting.load import load_run
from tests.reporting.conftest import ENV, SAMPLES, SCORES, MakeRun, make_run  # noqa: F401


def card_of(folder: Path, *, adapter: bool = False) -> tuple[dict[str, Any], str]:
    """Returns the YAML and the text of a run's card."""
    _, front, text = model_card(load_run(folder), [], adapter=adapter).split("---\n", 2)
    return yaml.safe_load(front), text


def test_a_base_model_of_the_hub_is_named_by_its_id(make_run: MakeRun) -> None:  # noqa: F811
    hub = {"model.name": "hf", "model.path": "meta-llama/Llama-3.2-1B-Instruct"}
    folder = make_run(config={**hub, "dataset.name": "tofu", "dataset.path": "locuslab/TOFU"})
    front, text = card_of(folder, adapter=True)
    assert front["base_model"] == "meta-llama/Llama-3.2-1B-Instruct" and front["datasets"] == ["locuslab/TOFU"]
    assert front["library_name"] == "peft" and "license" not in front
    assert "The licence of the base model meta-llama/Llama-3.2-1B-Instruct holds" in text


def test_the_licence_of_a_folder_is_the_one_that_its_card_states(make_run: MakeRun, tmp_path: Path) -> None:  # noqa: F811
    base = tmp_path / "alice" / "Llama"
    base.mkdir(parents=True)
    (base / "README.md").write_text("---\nlicense: llama3.2\nlicense_link: LICENSE.txt\ntags: [x]\n---\n# Llama\n")
    front, text = card_of(make_run(config={"model.name": "hf", "model.path": str(base)}))
    assert front["license"] == "llama3.2" and front["license_link"] == "LICENSE.txt" and "base_model" not in front
    assert "states the licence llama3.2 (LICENSE.txt)" in text and "# Llama, unlearned with eru" in text
    assert "alice" not in text


def test_the_card_says_what_the_run_found(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Figures are those of the run's files, written here by hand; every option has its value."""
    monkeypatch.setenv("MY_API_KEY", "verysecretvalue")
    command = "python -m erulab.run method=eru output=/home/alice/out dataset.path=/home/alice/d/rows x=verysecretvalue"
    front, text = card_of(make_run(env={**ENV, "command": command}))
    assert front["tags"] == ["machine-unlearning", "erulab", "eru"]
    assert "- **forgotten: knowledge left 0.02, 90 % interval \\[-0.02, 0.06\\] within ±0.10**" in text
    assert "utility kept: 97 %, 95 % interval" in text and "| choice forget | 1.00 (200) | 0.08 (200) |" in text
    for option in ("| method.beta | 2.5 |", "| trainer.lr | 0.0003 |", "| adversary.p | 0.5 |", "| seed | 0 |"):
        assert option in text
    assert text.count("| relearn |") == 3 and "| not valid |" in text
    assert "dataset.path=rows" in text and "alice" not in text and "verysecretvalue" not in text
    assert not [sample["prompt"] for sample in SAMPLES if sample["prompt"] in text and len(sample["prompt"]) > 5]


def test_a_collapsed_model_says_so_first(make_run: MakeRun) -> None:  # noqa: F811
    lost = {**SCORES, "unlearned": {**SCORES["unlearned"], "retain_unrehearsed/exact_match": 0.2}}
    front, text = card_of(make_run(scores=lost))
    assert "collapsed" in front["tags"] and text.split("- ")[1].startswith("**COLLAPSED: ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/alice smith/rows.jsonl", "rows.jsonl"),
        ("~/models/Llama", "Llama"),
        ("[/a/b.txt, /c/d.txt]", "[b.txt, d.txt]"),
        ("../shared/data/tofu", "../shared/data/tofu"),
        ("https://host/a/b", "https://host/a/b"),
        ("1/2 of a/b", "1/2 of a/b"),
    ],
)
def test_folders_of_one_machine_are_left_out(text: str, shown: str) -> None:
    assert without_folders({"key": [text]}) == {"key": [shown]}


def test_a_command_is_shared_without_the_places_of_its_run() -> None:
    typed = "python -m erulab.run output=/x/y 'dataset.forget=/a b/c.jsonl' cache=/z tracker=none method=npo"
    assert shared_command(typed) == "python -m erulab.run dataset.forget=c.jsonl method=npo"
