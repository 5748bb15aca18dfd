"""The memory of the data pipeline does not grow with the rows; the line of the scaling benchmark is right."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from erulab.bench import pipeline, scaling
from erulab.bench.scaling import fit_line


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """40,000 rows more, held as `Row`s or as tuples of ids, are 31 MB and more: either alone fails this (tried)."""
    most = {}
    for rows in (10_000, 50_000):  # below, what is written at once grows with the rows
        folder = tmp_path / str(rows)
        folder.mkdir()
        pipeline.write_files(folder, rows)
        measured = pipeline.measure_in_child(folder, tmp_path / "cache")
        assert measured.rows == rows and measured.tokens > 20 * rows
        most[rows] = measured.megabytes
    assert most[50_000] - most[10_000] < 15, most


def test_the_line_is_a_least_squares_fit() -> None:
    exact = fit_line([1, 2, 3, 4], [3, 5, 7, 9])
    assert (exact.fixed, exact.slope, exact.r_squared, exact.deviation) == pytest.approx((1, 2, 1, 0), abs=1e-9)
    # By hand: means 2 and 7/3, slope 3/2, so the line is -2/3 + 1.5 x and misses 1, 2, 4 by 1/6, -1/3, 1/6.
    fit = fit_line([1, 2, 3], [1, 2, 4])
    assert (fit.fixed, fit.slope) == pytest.approx((-2 / 3, 1.5))
    assert fit.r_squared == pytest.approx(1 - (1 / 6) / (14 / 3))
    assert fit.deviation == pytest.approx(1 / 6)


def test_steps_are_measured_and_fitted(capsys: pytest.CaptureFixture[str]) -> None:
    scaling.run(argparse.Namespace(rows=[], steps=1, layers=1, width=32))
    printed = capsys.readouterr().out
    assert printed.count("R^2") == 2 and "from files to batches" not in printed
    # Two thirds of a row are supervised; as many retain rows as forget rows.
    for rows, length in ((32, 96), (16, 24), (16, 192)):
        line = next(line for line in printed.splitlines() if line.split()[1::2][:2] == [str(rows), str(length)])
        assert line.split()[5] == str(2 * rows * length * 2 // 3)
