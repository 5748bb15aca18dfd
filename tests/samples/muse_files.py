"""A small corpus of made-up articles in MUSE's folder layout."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

PLACES = ("Almora", "Brenwick", "Corvale", "Dunmere", "Eastmoor", "Farlow", "Gannet", "Holt")
THINGS = ("bridge", "harbour", "library", "market", "museum", "railway", "school", "tower")
VERBS = ("opened", "closed", "burned", "moved", "reopened", "flooded")
FOLDS = 3


def article(seed: int, sentences: int = 3) -> str:
    """Returns a made-up article; the same seed gives the same text."""
    rng = random.Random(seed)
    made = [
        f"The {rng.choice(THINGS)} of {rng.choice(PLACES)} {rng.choice(VERBS)} in {rng.randint(1200, 1999)}."
        for _ in range(sentences)
    ]
    return " ".join(made)


def articles(first: int, count: int) -> list[str]:
    return [article(first + i) for i in range(count)]


def questions(first: int, count: int) -> list[dict[str, str]]:
    return [
        {
            "question": f"When was the {THINGS[i % 8]} of {PLACES[(first + i) % 8]} built?",
            "answer": str(1200 + 7 * (first + i)),
        }
        for i in range(count)
    ]


def content(texts: int = 6) -> dict[str, list[Any]]:
    """Maps each part of MUSE to its rows. Fold 2 repeats one article of fold 1; one retain article is blank."""
    folds = {f"sust/forget_{fold}": articles(100 * fold, texts) for fold in range(1, FOLDS + 1)}
    folds["sust/forget_2"][0] = folds["sust/forget_1"][-1]
    forget = folds["sust/forget_1"]
    return {
        "raw/forget": forget,
        "raw/retain1": [*articles(1000, texts), " "],
        "raw/retain2": articles(2000, texts),
        **folds,
        "verbmem/forget": [{"prompt": text[:40], "gt": text[40:]} for text in forget[:3]],
        "knowmem/forget_qa": questions(0, 3),
        "knowmem/forget_qa_icl": questions(40, 2),
        "knowmem/retain_qa": questions(10, 3),
        "knowmem/retain_qa_icl": questions(50, 2),
        "privleak/forget": forget[:4],
        "privleak/retain": articles(2000, 4),
        "privleak/holdout": articles(3000, 4),
    }


def written(folder: Path, parts: dict[str, list[Any]] | None = None) -> Path:
    """Writes the parts as JSON files in the layout of muse_bench's data/news and returns the folder."""
    for part, rows in (content() if parts is None else parts).items():
        file = folder / f"{part}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows))
    return folder
