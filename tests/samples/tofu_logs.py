"""Evaluation logs of TOFU with two rows per set, in both published layouts; their figures are worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

# Probability of the answer, of the truth ratio's right answer and of each wrong answer; ROUGE-L recall.
Row = tuple[float, float, list[float], float]
PROBABILITIES: dict[str, list[Row]] = {
    "retain": [(0.5, 0.4, [0.1, 0.4], 1.0), (0.25, 0.8, [0.2, 0.8], 0.5)],
    "real_authors": [(0.5, 0.5, [0.25, 0.25], 1.0), (0.2, 0.2, [0.1, 0.7], 0.0)],
    "world_facts": [(0.8, 0.8, [0.1, 0.1], 0.25), (0.6, 0.6, [0.2, 0.2], 0.75)],
    "forget": [(0.9, 0.5, [0.1, 0.4], 0.8), (0.1, 0.1, [0.2, 0.2], 0.2)],
}
# The figures of these rows. One number: the geometric and the arithmetic mean agree.
PROBABILITY = {
    "retain": 0.375,
    "real_authors": (0.5 / 1 + 0.2 / 1) / 2,
    "world_facts": (0.8 / 1 + 0.6 / 1) / 2,
    "forget": 0.5,
}
ROUGE = {"retain": 0.75, "real_authors": 0.5, "world_facts": 0.5, "forget": 0.5}
TRUTH_RATIO = {
    # R = 0.2 / 0.4 and 0.4 / 0.8; arithmetically 0.25 / 0.4 and 0.5 / 0.8.
    "retain": {"geometric": 0.5, "arithmetic": 0.375},
    # R = 1/2, and above 1, which counts as 0.
    "real_authors": {"geometric": 0.25, "arithmetic": 0.25},
    "world_facts": {"geometric": (7 / 8 + 2 / 3) / 2, "arithmetic": (7 / 8 + 2 / 3) / 2},
    # R = 0.2 / 0.5 and 2; arithmetically 0.25 / 0.5 and 2.
    "forget": {"geometric": (2 / 5 + 1 / 2) / 2, "arithmetic": 0.5},
}
SHARE = {"geometric": (5 / 7 + 1 / 3) / 2, "arithmetic": (2 / 3 + 1 / 3) / 2}
# Truth ratios 20 and 40 lie above both of the forget rows. Of the 6 ways to split 4 values into 2 pairs, 2 are that
# far apart, so the Kolmogorov-Smirnov p-value is 2/6.
RETRAINED: dict[str, list[Row]] = {"forget": [(0.1, 0.01, [0.2, 0.2], 0.1), (0.1, 0.01, [0.4, 0.4], 0.1)]}
FORGET_QUALITY = 1 / 3

FILES = {
    "retain": "eval_log.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
    "forget": "eval_log_forget.json",
}


def model_utility(mean: str) -> float:
    """Returns the harmonic mean of the 9 figures of retain, real authors and world facts: 9 / (1/x1 + ... + 1/x9)."""
    sets = ("retain", "real_authors", "world_facts")
    return 9 / sum(1 / PROBABILITY[s] + 1 / ROUGE[s] + 1 / TRUTH_RATIO[s][mean] for s in sets)


def nll(probability: float) -> float:
    return -math.log(probability)


def tofu_log(rows: dict[str, list[Row]], *, numbered: bool = False) -> dict[str, Any]:
    """Returns a log in the layout of locuslab/tofu: lists, or (numbered) objects by row number, not in order."""
    log: dict[str, Any] = {}
    for name, found in rows.items():
        columns = {
            "avg_gt_loss": [nll(answer) for answer, _, _, _ in found],
            "avg_paraphrased_loss": [nll(right) for _, right, _, _ in found],
            "average_perturb_loss": [[nll(p) for p in wrong] for _, _, wrong, _ in found],
            "rougeL_recall": [recall for _, _, _, recall in found],
        }
        log[FILES[name]] = {
            field: {str(i): values[i] for i in reversed(range(len(values)))} if numbered else values
            for field, values in columns.items()
        }
    return log


def open_unlearning_log(rows: dict[str, list[Row]]) -> dict[str, Any]:
    """Returns a log in the layout of open-unlearning, with fields that nobody reads."""
    log: dict[str, Any] = {"model_utility": {"agg_value": 0.5}, "extraction_strength": {"agg_value": 0.1}}
    prefixes = {"retain": "retain", "real_authors": "ra", "world_facts": "wf", "forget": "forget"}
    for name, found in rows.items():
        prefix = prefixes[name]
        answers = {str(i): {"prob": row[0], "avg_loss": nll(row[0])} for i, row in enumerate(found)}
        rights = {str(i): {"prob": row[1], "avg_loss": nll(row[1])} for i, row in enumerate(found)}
        wrongs = {str(i): {"prob": row[2], "avg_loss": [nll(p) for p in row[2]]} for i, row in enumerate(found)}
        recalls = {str(i): {"rougeL_recall": row[3], "rougeL_f1": 0.3, "input": "x"} for i, row in enumerate(found)}
        log[f"{prefix}_Q_A_Prob"] = {"agg_value": 0.4, "value_by_index": answers}
        log[f"{prefix}_Q_A_PERT_Prob"] = {"agg_value": 0.4, "value_by_index": wrongs}
        log[f"{prefix}_Q_A_ROUGE"] = {"agg_value": 0.4, "value_by_index": recalls}
        if name in ("retain", "forget"):
            log[f"{prefix}_Q_A_PARA_Prob"] = {"agg_value": 0.4, "value_by_index": rights}
    return log


def written(content: object, file: Path) -> Path:
    file.write_text(json.dumps(content))
    return file
