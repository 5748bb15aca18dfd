"""The harness's results as figures of scores.json, from results written down as lm_eval 0.4.13 gives them."""

from __future__ import annotations

import pytest

from erulab.evaluation.external.harness_results import external_scores

RESULTS = {
    "results": {
        "gsm8k": {
            "name": "gsm8k",
            "alias": "gsm8k",
            "sample_len": 25,
            "exact_match,strict-match": 0.25,
            "exact_match_stderr,strict-match": 0.05,
            "exact_match,flexible-extract": 0.98,
            "exact_match_stderr,flexible-extract": 0.02,
        },
        "wikitext": {
            "name": "wikitext",
            "alias": "wikitext",
            "sample_len": 4,
            "word_perplexity,none": 12.5,
            "word_perplexity_stderr,none": "N/A",
            "bleu,none": 1.0,
            "bleu_stderr,none": 2.0,
        },
        "mixed": {
            "name": "mixed",
            "alias": "mixed",
            "sample_len": 29,
            "acc,none": 0.5,
            "acc_stderr,none": 0.1,
            "sample_count": {"acc,none": 25},
        },
        "group_without_figures": {"name": "group_without_figures", "alias": "group_without_figures"},
    },
    "versions": {"gsm8k": 3.0, "wikitext": 2.0, "mixed": "1"},
    "n-shot": {"gsm8k": 5, "wikitext": 0, "mixed": 5},
    "lm_eval_version": "0.4.13",
    "transformers_version": "5.0.0",
}


def test_figures_have_the_names_of_task_metric_and_filter() -> None:
    assert external_scores(RESULTS).figures == {
        "lm_eval/gsm8k/n": 25,
        "lm_eval/gsm8k/exact_match,strict-match": 0.25,
        "lm_eval/gsm8k/exact_match,strict-match/stderr": 0.05,
        "lm_eval/gsm8k/exact_match,flexible-extract": 0.98,
        "lm_eval/gsm8k/exact_match,flexible-extract/stderr": 0.02,
        "lm_eval/wikitext/n": 4,
        "lm_eval/wikitext/word_perplexity": 12.5,
        "lm_eval/wikitext/bleu": 1.0,
        "lm_eval/wikitext/bleu/stderr": 2.0,
        "lm_eval/mixed/n": 29,
        "lm_eval/mixed/acc": 0.5,
        "lm_eval/mixed/acc/stderr": 0.1,
        "lm_eval/mixed/acc/n": 25,
    }


def test_intervals_are_two_normal_quantiles_wide_and_shares_stay_shares() -> None:
    intervals = external_scores(RESULTS).intervals
    assert intervals.keys() == {
        "lm_eval/gsm8k/exact_match,strict-match",
        "lm_eval/gsm8k/exact_match,flexible-extract",
        "lm_eval/wikitext/bleu",
        "lm_eval/mixed/acc",
    }
    assert intervals["lm_eval/gsm8k/exact_match,strict-match"] == pytest.approx((0.152, 0.348))
    assert intervals["lm_eval/gsm8k/exact_match,flexible-extract"] == pytest.approx((0.9408, 1.0))
    assert intervals["lm_eval/wikitext/bleu"] == pytest.approx((-2.92, 4.92))  # not a share: not cut


def test_versions_and_examples_are_kept() -> None:
    details = external_scores(RESULTS).details
    assert details["lm_eval"] == "0.4.13"
    assert details["tasks"]["gsm8k"] == {"version": 3.0, "num_fewshot": 5, "n": 25}
