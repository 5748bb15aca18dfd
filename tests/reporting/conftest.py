"""Synthetic run folders, written file by file as the public interface describes them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

CONFIG: dict[str, Any] = {
    "model": {"name": "tiny", "path": None, "target": None, "oracle": None, "unlearned": None},
    "dataset": {"name": "fictitious", "world": 0},
    "method": {"name": "eru", "beta": 2.5, "retain": "nll"},
    "reward": {"name": "elastic", "alpha": 0.2},
    "adversary": {"name": "rfa", "p": 0.5},
    "attack": {"relearn": {"name": "relearn", "samples": [100]}, "quantize": {"name": "quantize", "bits": [8, 4]}},
    "trainer": {"lr": 3e-4, "global_batch": 32},
    "stages": ["target", "oracle", "unlearn", "evaluate", "attack", "report"],
    "seed": 0,
    "output": "outputs",
}


def figures(choice: float, heldout: float, retain: float, unrehearsed: float, utility: float) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for suite, n, share, exact in (
        ("forget", 200, choice, choice * 0.9),
        ("forget_heldout", 180, heldout, heldout * 0.8),
        ("retain", 125, retain, retain),
        ("retain_unrehearsed", 100, unrehearsed, unrehearsed),
        ("general", 40, 0.97, 0.95),
        ("unseen", 75, 0.07, 0.0),
    ):
        flat |= {
            f"{suite}/n": n,
            f"{suite}/probability": share * 0.9,
            f"{suite}/truth_ratio": 0.5,
            f"{suite}/log_odds": 8 * share - 3,
            f"{suite}/choice": share,
            f"{suite}/rouge": share,
            f"{suite}/exact_match": exact,
        }
    return flat | {"model_utility": utility, "knowledge": 4 * choice}


SCORES: dict[str, dict[str, Any]] = {
    "target": {**figures(1.0, 0.99, 1.0, 1.0, 0.912), "forget_quality": 1.9e-23},
    "unlearned": {
        **figures(0.08, 0.1, 0.98, 0.97, 0.885),
        "forget_quality": 0.31,
        "knowledge_left": 0.02,
        "knowledge_left_low": -0.03,
        "knowledge_left_high": 0.07,
        "knowledge_left_low90": -0.022,
        "knowledge_left_high90": 0.062,
        "knowledge_left_facts": 100,
        "utility_kept": 0.97,
        "utility_kept_low": 0.93,
        "utility_kept_high": 1.01,
        "utility_kept_low90": 0.94,
        "utility_kept_high90": 1.0,
    },
    "oracle": {**figures(0.07, 0.08, 1.0, 1.0, 0.915), "forget_quality": 1.0},
}


def attack_row(attack: str, setting: dict[str, Any], knowledge_left: float | None, **changes: Any) -> dict[str, Any]:
    """A headline row, as erulab/attacks/judging/rows.py makes them (test_robustness.py compares the keys)."""
    row = {
        "attack": attack,
        "setting": setting,
        "metric": "log_odds",
        "headline": True,
        "target": 5.1,
        "unlearned": -2.3,
        "oracle": -2.4,
        "attacked_target": 4.9,
        "attacked_unlearned": -1.4,
        "attacked_oracle": -2.3,
        "knowledge_left": 0.02,
        "knowledge_left_attacked": knowledge_left,
        "recovered": 0.12,
        "maintained_gap": 0.88,
        "maintained_error": None,
        "gap_kept": 0.96,
        "low": None if knowledge_left is None else knowledge_left - 0.07,
        "high": None if knowledge_left is None else knowledge_left + 0.08,
        "low90": None if knowledge_left is None else knowledge_left - 0.059,
        "high90": None if knowledge_left is None else knowledge_left + 0.067,
        "valid": True,
        "standing": "counts" if knowledge_left is not None else "undefined",
        "reason": None if knowledge_left is not None else NO_GAP,
        "steps": 38.0,
        "flops": 5.1e10,
        "seconds": 3.5,
        "utility": 1.0,
        "utility_attacked": 0.9,
        "chosen": {},
        "attempts": [],
        "repeats": [],
        "savings": {},
        "open_unlearning_r": None,
        "open_unlearning_q": None,
        "note": "maintained_error undefined: log-odds have no error",
        "facts": 95,
        "n": 190,
    }
    if changes.get("valid") is False:
        row |= {"standing": "not_valid", "reason": DESTROYED}
    return row | changes


def choice_row(attack: str, setting: dict[str, Any], knowledge_left: float | None, **changes: Any) -> dict[str, Any]:
    return attack_row(attack, setting, knowledge_left, **changes) | {
        "metric": "forget/choice",
        "headline": False,
        "target": 1.0,
        "unlearned": 0.1,
        "oracle": 0.08,
        "attacked_target": 1.0,
        "attacked_unlearned": 0.2,
        "attacked_oracle": 0.09,
        "maintained_error": 0.9,
        "note": "",
        **changes,
    }


def utility_row(attack: str, setting: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return attack_row(attack, setting, None) | {
        "metric": "retain/choice",
        "headline": False,
        "target": 1.0,
        "unlearned": 1.0,
        "oracle": 1.0,
        "attacked_target": 0.95,
        "attacked_unlearned": 0.9,
        "attacked_oracle": 0.94,
        "knowledge_left": None,
        "recovered": None,
        "maintained_gap": None,
        "standing": None,
        "reason": None,
        "note": "utility: target and oracle both know these rows",
        "n": 60,
        **changes,
    }


def attacked(
    attack: str, setting: dict[str, Any], knowledge_left: float | None, **changes: Any
) -> list[dict[str, Any]]:
    """The whole group of rows of one attack in one setting."""
    shared = {key: changes[key] for key in ("valid",) if key in changes}
    return [
        attack_row(attack, setting, knowledge_left, **changes),
        choice_row(attack, setting, knowledge_left, **shared),
        utility_row(attack, setting, **shared),
    ]


FREE = {"steps": 0.0, "flops": 0.0, "seconds": 0.02}
NO_GAP = "target and oracle differ by too little (lower bound .1, must be over .2)"
DESTROYED = "the attacked target keeps 0.20 of its gap to the oracle"
ATTACKS = [
    *attacked("relearn", {"samples": 10, "split": "fact"}, 0.05),
    *attacked("relearn", {"samples": 100, "split": "fact"}, 0.12, attacked_unlearned=-0.6, attacked_oracle=-2.0),
    *attacked("relearn", {"samples": 1000, "split": "fact"}, 0.64, valid=False, attacked_target=1.2),
    *attacked("quantize", {"bits": 8}, 0.02, **FREE),
    *attacked(
        "quantize",
        {"bits": 4},
        None,
        **FREE,
        note=f"knowledge_left_attacked undefined: {NO_GAP}; recovered undefined: x",
    ),
]
SAMPLES = [
    {
        "suite": "forget",
        "role": "forget",
        "prompt": "Where was Bela Ronu born?",
        "reference": "Bela Ronu was born in Kamil.",
        "target": "Bela Ronu was born in Kamil.",
        "unlearned": "Bela Ronu was born in Tiro.",
        "oracle": "Bela Ronu was born in Goden.",
    },
    {"suite": "retain", "role": "retain", "prompt": "Who?", "reference": "Nobody.", "unlearned": "Nobody."},
]
ENV = {
    "erulab": "0.1.0",
    "python": "3.11.2",
    "torch": "2.13.0",
    "platform": "Linux",
    "cpu": "Xeon",
    "cores": 2,
    "memory_gb": 15.6,
    "gpus": [],
    "git": "a" * 40,
    "started": "2026-11-24T02:00:00",
    "command": "python -m erulab.run method=eru",
}


def metrics(steps: int) -> list[dict[str, Any]]:
    return [
        {
            "step": s,
            "loss": 3 - s / steps,
            "forget_loss": 2 - s / steps,
            "retain_loss": 0.4 + 0.3 / (s + 1),
            "lr": 1e-4,
            "grad_norm": 1.0,
            "rows_per_second": 300.0,
            "method/nll": 0.2 + 4 * s / steps,
            "method/depth": 4 * s / steps,
            **({"adversary/gain": 0.3} if s % 10 == 0 else {}),
            "stage": "unlearn",
            "time": 1.0e9 + s,
        }
        for s in range(steps)
    ]


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """`make_run("npo-1", config={"method.name": "npo"}, scores=..., without=("attacks",))` writes a folder."""

    def make(name: str = "eru-0123456789abcdef", *, config: dict[str, Any] | None = None, **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        settings = copy.deepcopy(CONFIG)
        for key, value in (config or {}).items():
            *groups, last = key.split(".")
            node = settings
            for group in groups:
                node = node[group]
            node[last] = value
        (folder / "run.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        stages = {
            stage: {"key": stage[0] * 16, "seconds": 4.25, "from_cache": stage == "oracle", "done": True}
            for stage in settings["stages"]
        }
        contents = {
            "scores": SCORES,
            "attacks": ATTACKS,
            "samples": SAMPLES,
            "stages": stages,
            "env": ENV,
            "exit": {"code": 0, "message": "", "rank": 0},
        } | changes
        for file, content in contents.items():
            if file in ("without", "metrics") or file in changes.get("without", ()):
                continue
            (folder / f"{file}.json").write_text(json.dumps(content))
        lines = changes.get("metrics", metrics(30))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return make
