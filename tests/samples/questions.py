"""A few made-up questions in the file formats of WMDP, MMLU and ARC."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PLACES = ("Brenwick", "Almora", "Dunmere", "Eskholm", "Farrowgate", "Galtara", "Hollin", "Istrel")


def _question(i: int) -> dict[str, Any]:
    choices = [f"{PLACES[(i + k) % 8]}, {'by the sea ' * k}{i}" for k in range(4)]
    # Published questions have spaces around them; lm-evaluation-harness strips them from the question only.
    return {"question": f"{' ' * (i % 2)}Where was author {i} born? ", "choices": choices, "answer": (3 * i + 1) % 4}


WMDP = [_question(i) for i in range(9)]
MMLU_DEV = [_question(i) for i in range(20, 23)]
ARC = [
    {
        "id": f"q{i}",
        "question": f"What does {PLACES[i]} write?",
        "choices": {
            "text": ["satire", "poems and long fables", "a play"][: 3 - i % 2] + ["no thing"],
            "label": ["1", "2", "3", "4"][: 4 - i % 2] if i % 3 else ["A", "B", "C", "D"][: 4 - i % 2],
        },
        "answerKey": str(1 + i % 3) if i % 3 else "ABC"[i % 3],
    }
    for i in range(8)
]
ARC_QUERIES = [
    {"query": f"Question: {question['question'].strip()}", "choices": question["choices"], "gold": question["answer"]}
    for question in WMDP
]

# The same questions in the format of the hub.
ARC_OF_QUERIES = [
    {
        "id": f"easy{i}",
        "question": question["question"].strip(),
        "answerKey": "ABCD"[question["answer"]],
        "choices": {"text": question["choices"], "label": list("ABCD")},
    }
    for i, question in enumerate(WMDP)
]


def write(file: Path, records: Iterable[Any]) -> Path:
    """Writes one JSON record per line and returns the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file
