"""Results as data: tidy frames of runs, arms and paired differences, to be filtered, sorted, and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from erulab.reporting.frames.arm_rows import arm_frame, arm_notes, difference_frame
from erulab.reporting.frames.files import DATA_FORMATS, data_file, pandas_frame, people_table
from erulab.reporting.frames.filters import filtered
from erulab.reporting.frames.frame import Frame
from erulab.reporting.frames.run_rows import attack_frame, run_frame, score_frame, step_frame
from erulab.reporting.load import RunResult

__all__ = [
    "DATA_FORMATS",
    "FRAMES",
    "Frame",
    "arm_notes",
    "data_file",
    "filtered",
    "pandas_frame",
    "people_table",
]

# What has a row -> the function that makes the frame.
FRAMES: Mapping[str, Callable[[Sequence[RunResult]], Frame]] = {
    "runs": run_frame,
    "arms": arm_frame,
    "differences": difference_frame,
    "scores": score_frame,
    "attacks": attack_frame,
    "steps": step_frame,
}
