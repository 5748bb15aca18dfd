"""Two invented people in the folder layout of RWKU on the hub, with every kind of row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ATTACKS = ("prefix injection", "affirmative suffix", "incontext learning", "cross lingual (French)")


def tables(name: str) -> dict[str, list[dict[str, Any]]]:
    """Maps the name of each file about one person to its rows."""
    same = {"subject": name}

    def probe(query: str, answer: str, level: int, kind: str) -> dict[str, str]:
        return {**same, "query": query, "answer": answer, "level": str(level), "type": kind}

    question = {"question": f"Is {name} tall?", "choices": ["yes", "no", "both", "none"], "answer": 1}
    return {
        "intro": [{"target": name, "intro": f"Please forget {name}."}],
        "forget_level1": [probe(f"{name} lives in ___", "Oslo", 1, "cloze")],
        "forget_level2": [
            probe(f"Where does {name} live?", "Oslo", 2, "simple question"),
            probe(f"What does {name} play?", "the cello", 2, "simple question"),
        ],
        "forget_level3": [probe(f"{kind} on {name}?", "Oslo", 3, kind) for kind in ATTACKS],
        "neighbor_level1": [probe("Oslo is in ___", "Norway", 1, "cloze")],
        "neighbor_level2": [probe("Where is Oslo?", "Norway", 2, "simple question")],
        "forget_mia": [{**same, "text": f"{name} lives in Oslo, by the sea.", "ngram": 7}],
        "retain_mia": [{**same, "text": "Bergen is a town of rain.", "ngram": 6}],
        "passage": [{**same, "text": f"{name} was born in Oslo."}, {**same, "text": f"{name} plays the cello."}],
        "positive": [{**same, "id": f"{name} {i}", "intro": "", "text": f"{name} wrote book {i}."} for i in range(3)],
        "pair": [
            {**same, "prompt": f"Tell me of {name}.", "response": [f"{name} is a pilot.", f"{name} is a cellist."]},
            {**same, "prompt": f"Tell me more of {name}.", "response": [f"{name} flies.", f"{name} plays."]},
        ],
        "reject": [
            {**same, "instruction": f"Where does {name} live?", "input": "", "output": "I cannot say."},
            {**same, "instruction": f"What does {name} play?", "input": "", "output": "I do not know."},
        ],
        "retain_mmlu": [{**same, **question, "task": "high_school_biology", "examples": [question] * 5}],
        "retain_bbh": [
            {
                **same,
                "task": "navigate",
                "cot": "Q: One?\nA: So the answer is (A).\n",
                "question": "Two?",
                "answer": "(B)",
            }
        ],
        "truthful": [
            {
                **same,
                "question": "Is rain wet?",
                "mc1_targets": {"choices": ["Yes.", "No."], "labels": [1, 0]},
                "mc2_targets": {"choices": ["Yes.", "No."], "labels": [1, 0]},
            }
        ],
        "triviaqa": [{**same, "question": "Which town?", "answers": ["Bergen", "Bjorgvin"]}],
        "fluency": [{**same, "instruction": "Write a line."}],
    }


def write_target(folder: Path, name: str) -> None:
    """Writes the files about one person into a new folder."""
    folder.mkdir(parents=True)
    for table, rows in tables(name).items():
        (folder / f"{table}.json").write_text(json.dumps(rows, indent=1))


def hub_layout(folder: Path) -> Path:
    """Writes Target/1_Ada_Lund, Target/2_Bo_Ek and All/intro.json, which names a third person; returns the folder."""
    for number, name in enumerate(("Ada Lund", "Bo Ek"), start=1):
        write_target(folder / "Target" / f"{number}_{name.replace(' ', '_')}", name)
    (folder / "All").mkdir()
    names = [{"target": name, "intro": ""} for name in ("Ada Lund", "Bo Ek", "Cleo Wing")]
    (folder / "All" / "intro.json").write_text(json.dumps(names))
    return folder
