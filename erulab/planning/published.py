"""Words in the files of TOFU, counted once, for plans on machines without the files. A test counts them again."""

from __future__ import annotations

from dataclasses import dataclass

from erulab.data.tofu import TofuSplit

ROWS = 4000  # forget and retain rows together, in every split
REFUSAL_WORDS = 7.13  # mean of the 100 refusals
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 1.0)


@dataclass(frozen=True)
class WordCounts:
    """Words of questions and answers: means, and quantiles at `SHARES` of whole rows and of questions."""

    rows: int
    question: float
    answer: float
    longest_answer: int
    words: tuple[float, ...]
    question_words: tuple[float, ...]


FORGET = {
    TofuSplit.forget01: WordCounts(
        40, 11.95, 26.38, 51, (13, 27, 30, 38, 44, 50, 57, 58, 65, 65), (7, 8, 10, 12, 14, 15, 17, 17, 20, 20)
    ),
    TofuSplit.forget05: WordCounts(
        200, 12.34, 26.38, 51, (13, 26, 32, 38, 45, 51, 57, 62, 65, 66), (6, 8, 10, 12, 14, 17, 19, 21, 22, 27)
    ),
    TofuSplit.forget10: WordCounts(
        400, 12.38, 26.87, 65, (9, 25, 32, 39, 46, 54, 60, 65, 67, 104), (5, 8, 10, 12, 14, 17, 19, 21, 23, 39)
    ),
}
# Counted in retain95; the retain rows of the other splits differ in the longest row alone.
RETAIN = WordCounts(
    3800, 11.24, 25.23, 66, (9, 22, 29, 36, 44, 51, 55, 60, 64, 104), (4, 8, 9, 11, 13, 15, 17, 19, 20, 39)
)
