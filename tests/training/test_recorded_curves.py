"""The losses of before methods said what they need (commit a639fb9), step by step, on the table's small cases.

On the machine of the recording (one thread) the values were equal to the last bit; other processors round otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erulab.data.rows import Benchmark
from erulab.models.loaded import LoadedModel
from tests.cases import CASES
from tests.training.conftest import Unlearning

RECORDED = json.loads((Path(__file__).parent / "recorded_curves.json").read_text())
# Later cases of the same name are of options that came after the recording.
RECORDED_CASES = {case.name: case for case in CASES if case.name in RECORDED}


def test_every_recorded_case_is_still_in_the_table() -> None:
    assert RECORDED_CASES.keys() == RECORDED.keys()


@pytest.mark.parametrize("name", RECORDED)
def test_losses_are_the_recorded_ones(name: str, world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    metrics, _ = Unlearning(RECORDED_CASES[name], world, loaded).run(tmp_path)
    for quantity, values in RECORDED[name].items():
        expected = [float.fromhex(value) for value in values]
        assert [step[quantity] for step in metrics] == pytest.approx(expected, rel=2e-5, abs=2e-6)
