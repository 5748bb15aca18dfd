"""The evaluation benchmark: its plain way is written from the definitions, so equal figures verify those of erulab."""

from __future__ import annotations

import re

import pytest

from erulab.bench import __main__ as bench
from tests.bench.test_step import TINY


def test_the_plain_way_gives_the_same_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """An untrained model answers at random, so its figures are far from 0 and 1 only where the definitions agree."""
    assert bench.main(["evaluate", *TINY, "evaluation.max_new_tokens=12", "--rows", "5"]) == 0
    out = capsys.readouterr().out
    lines = {line[:16].strip(): line[16:].split() for line in out.splitlines()}
    for part in ("teacher-forced", "generated"):
        ours, plain, ratio, difference = map(float, lines[part])
        assert ours > 0 and plain > 0 and ratio == pytest.approx(plain / ours, rel=0.02)
        assert difference < 1e-4, part
    found = re.search(
        r"generation: (\d+) tokens in (\d+) forwards.*per token takes (\S+) s, once per forward (\S+) s", out
    )
    assert found is not None
    tokens, forwards, per_token, per_forward = map(float, found.groups())
    # 12 tokens at most, the first after the prompt and its common opening.
    assert 12 <= forwards <= 14 and tokens > forwards
    assert per_token / per_forward == pytest.approx(tokens / forwards, rel=0.02)
