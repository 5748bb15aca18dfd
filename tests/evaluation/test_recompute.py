"""Figures of logs: by hand in every layout, and as published for TOFU's Phi-1.5 models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erulab.errors import DataError
from erulab.evaluation.logs import RowSet, read_log
from erulab.evaluation.recompute import recompute_figures
from tests.samples import tofu_logs
from tests.samples.tofu_logs import PROBABILITIES, RETRAINED, open_unlearning_log, tofu_log, written

LOGS = Path(__file__).resolve().parents[3] / "shared/data/tofu/reference_logs"
published = pytest.mark.skipif(not LOGS.is_dir(), reason=f"TOFU's reference logs are not at {LOGS}")


def layouts(rows: dict[str, list[tofu_logs.Row]]) -> dict[str, dict[str, Any]]:
    return {
        "lists": tofu_log(rows),
        "by row number": tofu_log(rows, numbered=True),
        "open-unlearning": open_unlearning_log(rows),
    }


@pytest.mark.parametrize("layout", layouts({}))
def test_figures_by_hand(layout: str, tmp_path: Path) -> None:
    log = read_log(written(layouts(PROBABILITIES)[layout], tmp_path / "log.json"))
    assert log.layout == ("open-unlearning" if layout == "open-unlearning" else "locuslab/tofu")
    # The other model's log may be of the other layout, and hold the forget rows only.
    retrained = tofu_log(RETRAINED) if layout == "open-unlearning" else open_unlearning_log(RETRAINED)
    found = recompute_figures(log, read_log(written(retrained, tmp_path / "retrained.json")))
    for rows, figures in found.sets.items():
        name = rows.value
        assert figures.n == 2
        assert figures.probability == pytest.approx(tofu_logs.PROBABILITY[name], rel=1e-12)
        assert figures.rouge == pytest.approx(tofu_logs.ROUGE[name], rel=1e-12)
        assert figures.truth_ratio == pytest.approx(tofu_logs.TRUTH_RATIO[name], rel=1e-12)
    for mean in ("geometric", "arithmetic"):
        assert found.model_utility[mean] == pytest.approx(tofu_logs.model_utility(mean), rel=1e-12)
        assert found.truth_ratio_share[mean] == pytest.approx(tofu_logs.SHARE[mean], rel=1e-12)
    assert found.forget_quality is not None and found.forget_quality.n == 2
    assert found.forget_quality.p == pytest.approx(tofu_logs.FORGET_QUALITY)
    assert recompute_figures(log).forget_quality is None


@pytest.mark.parametrize("layout", layouts({}))
def test_the_first_rows_by_number(layout: str, tmp_path: Path) -> None:
    log = read_log(written(layouts(PROBABILITIES)[layout], tmp_path / "log.json"))
    one = recompute_figures(log, limit=1).sets
    assert one[RowSet.retain].n == 1 and one[RowSet.retain].probability == pytest.approx(0.5)
    assert one[RowSet.real_authors].rouge == 1.0
    assert recompute_figures(log, limit=7) == recompute_figures(log)


def test_logs_of_different_lengths_fit_when_cut(tmp_path: Path) -> None:
    log = read_log(written(tofu_log(PROBABILITIES), tmp_path / "log.json"))
    longer = {"forget": [*RETRAINED["forget"], *RETRAINED["forget"]]}
    retrained = read_log(written(open_unlearning_log(longer), tmp_path / "retrained.json"))
    with pytest.raises(DataError, match="not of the same forget rows: 2 and 4; name logs of one split, and --rows N"):
        recompute_figures(log, retrained)
    quality = recompute_figures(log, retrained, limit=2).forget_quality
    assert quality is not None and (quality.p, quality.n) == (pytest.approx(tofu_logs.FORGET_QUALITY), 2)


def test_a_figure_of_zero_makes_model_utility_zero(tmp_path: Path) -> None:
    rows = PROBABILITIES | {"world_facts": [(0.8, 0.8, [0.1], 0.0)]}
    found = recompute_figures(read_log(written(tofu_log(rows), tmp_path / "log.json")))
    assert found.model_utility == {"geometric": 0.0, "arithmetic": 0.0}


def figures_of(model: str, retrained: str | None = None, limit: int | None = None) -> Any:
    retain_log = read_log(LOGS / f"{retrained}.json") if retrained else None
    return recompute_figures(read_log(LOGS / f"{model}.json"), retain_log, limit)


@published
@pytest.mark.parametrize(
    ("model", "geometric", "arithmetic"), [("phi-1.5_full", 0.5221, 0.5034), ("phi-1.5_retain90", 0.5320, 0.5130)]
)
def test_published_model_utility(model: str, geometric: float, arithmetic: float) -> None:
    expected = {"geometric": geometric, "arithmetic": arithmetic}
    assert figures_of(model).model_utility == pytest.approx(expected, abs=2e-4)


@published
def test_published_forget_quality() -> None:
    quality = figures_of("phi-1.5_full", "phi-1.5_retain90", 300).forget_quality
    assert quality.p == pytest.approx(2.19e-16, rel=0.01) and quality.n == 300
    # The full model's forget rows are those of forget10; retain95's are of forget05.
    with pytest.raises(DataError, match="300 and 200"):
        figures_of("phi-1.5_full", "phi-1.5_retain95")
