"""The rows that a relearning attack trains on, the rows it is scored on, and the split between the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from erulab import draws
from erulab.attacks.base import Inapplicable, Repeat
from erulab.attacks.halves import validation_half
from erulab.data.arrow_sequence import select_items
from erulab.data.reading import read_texts
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.data.stored_rows import row_column
from erulab.data.text_files import read_text_lines
from erulab.errors import ConfigError
from erulab.evaluation.suites import forget_suites


class RelearnSource(Enum):
    """The rows that an attacker trains on."""

    forget = "forget"
    retain = "retain"
    unrelated = "unrelated"  # rows that no model learned, or the user's own texts


class RelearnSplit(Enum):
    """The facts that are scored: those that were not relearned, or all of them."""

    disjoint = "disjoint"  # those that were not relearned
    all = "all"  # all of them


class SplitUnit(Enum):
    """The unit that a disjoint split never divides."""

    fact = "fact"
    author = "author"


@dataclass(frozen=True)
class RelearnRows:
    """The rows of a relearning attack.

    by: what a disjoint split does not divide.
    mixed: whether each row of the source is followed by a retain row.
    texts: a file of texts in place of the data set's own unrelated rows.
    """

    source: RelearnSource
    split: RelearnSplit
    by: SplitUnit
    mixed: bool
    texts: str | None

    @property
    def disjoint(self) -> bool:
        return self.split is RelearnSplit.disjoint and self.source is RelearnSource.forget

    def check(self, benchmark: Benchmark, seed: int) -> None:
        """Checks that there are rows to train on and rows to score.

        Raises:
            ConfigError: the file of texts does not exist.
            Inapplicable: the data set has no rows of this source, or none to score; or the split cannot be made.
        """
        named = f"attack.relearn.source={self.source.value}"
        if self.disjoint and len(self._units(benchmark)) < 2:
            raise Inapplicable(
                f"attack.relearn.split={self.split.value} needs two {self.by.value}s or more to forget, one half to "
                "relearn and one to score; type attack.relearn.split=all"
            )
        if self.source is RelearnSource.forget and not row_column(benchmark.forget, "answered").all():
            raise Inapplicable(f"{named}: rows with only a refusal teach nothing; type attack=none")
        if (self.mixed or self.source is RelearnSource.retain) and not benchmark.retain:
            asked = "attack.relearn.mixed=true" if self.mixed else named
            raise Inapplicable(f"{asked} trains on retain rows, and the data set has none")
        if not len(self._source_rows(benchmark)):
            raise Inapplicable(
                f"{named} needs rows that no model learned, and this data set measures none (evaluation.suites); name "
                "a file of texts: attack.relearn.texts=FILE"
            )
        if not any(suite.rows for suite in self.scored(benchmark, Repeat(seed))):
            raise Inapplicable(
                f"attack.relearn.split={self.split.value}: no evaluated forget row asks for a {self.by.value} of the "
                "half that is not relearned; type attack.relearn.split=all"
            )

    def available(self, benchmark: Benchmark, repeat: Repeat) -> int:
        """Returns how many rows of the source can be trained on; with `mixed`, each needs a retain row."""
        own = len(self._row_order(benchmark, repeat))
        return min(own, len(benchmark.retain)) if self.mixed else own

    def trained(self, benchmark: Benchmark, repeat: Repeat, count: int) -> Sequence[Row]:
        """Returns the rows that are trained on: the first `count` rows of the source, in the repeat's order.

        A larger count only adds rows. With `mixed`, a retain row follows each row, so there are twice as many.
        """
        rows = select_items(self._source_rows(benchmark), self._row_order(benchmark, repeat)[:count])
        if not self.mixed:
            return rows
        beside = select_items(benchmark.retain, _drawn_order(benchmark.retain, repeat, "mixed")[:count])
        return tuple(row for pair in zip(rows, beside, strict=True) for row in pair)

    def scored(self, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        """Returns the forget and held-out suites; with a disjoint split, without relearned facts (or authors)."""
        suites = forget_suites(benchmark)
        if not self.disjoint:
            return suites
        # Only rows whose fact (or author) certainly is in the other half. A held-out row without a named fact, which no
        # forget row shares, may phrase a relearned fact.
        left = set(self._units(benchmark)) - self._relearned(benchmark, repeat)
        return tuple(
            replace(suite, rows=tuple(row for row in suite.rows if self._unit(row) in left)) for suite in suites
        )

    def _row_order(self, benchmark: Benchmark, repeat: Repeat) -> list[int]:
        """Returns indices into the source's rows, in the order in which a larger count adds them."""
        rows = self._source_rows(benchmark)
        drawn = _drawn_order(rows, repeat)
        if not self.disjoint:
            return drawn
        relearned = self._relearned(benchmark, repeat)
        kept = {i for i, row in enumerate(rows) if self._unit(row) in relearned}
        return [i for i in drawn if i in kept]

    def _source_rows(self, benchmark: Benchmark) -> Sequence[Row]:
        if self.source is RelearnSource.forget:
            return benchmark.forget
        if self.source is RelearnSource.retain:
            return benchmark.retain
        if self.texts is not None:
            return running_text_rows(self.texts)
        learned = {row.fact_id for rows in (benchmark.forget, benchmark.retain) for row in rows}
        # Not the suites that are made of the words of the forgotten rows: these are not unrelated.
        suites = [suite for suite in benchmark.suites if suite.role is Role.UNSEEN and not suite.like]
        unseen = (row for suite in suites for row in suite.rows)
        return tuple(row for row in unseen if row.response.strip() and row.fact_id not in learned)

    def _relearned(self, benchmark: Benchmark, repeat: Repeat) -> set[str]:
        """Returns the half of the forget set's facts (or authors) that is relearned in this repeat.

        Repeats 0 and 1, 2 and 3, ... relearn complementary halves. Each half holds as many validation facts as other
        facts, so that both kinds are left to score: one chooses learning rate and steps, the other is reported.
        """
        pair, fold = divmod(repeat.number, 2)
        kinds = self._units(benchmark, validation_half(benchmark, repeat.seed))
        drawn = sorted(
            kinds, key=lambda unit: (kinds[unit], draws.seed_of(repeat.seed, "attack", "relearn", pair, unit))
        )
        return set(drawn[1 - fold :: 2])

    def _units(self, benchmark: Benchmark, validation: frozenset[str] = frozenset()) -> dict[str, list[bool]]:
        """Maps each fact (or author) of the forget set to whether it has validation facts, other facts, or both."""
        kinds: dict[str, set[bool]] = {}
        for row in benchmark.forget:
            kinds.setdefault(self._unit(row), set()).add(row.fact_id in validation)
        return {unit: sorted(kind) for unit, kind in kinds.items()}

    def _unit(self, row: Row) -> str:
        return row.author or row.fact_id if self.by is SplitUnit.author else row.fact_id


def check_texts_file(texts: str | None) -> None:
    """Checks that `attack.relearn.texts` is a file.

    Raises:
        ConfigError: it is not.
    """
    if texts is not None and not Path(texts).is_file():
        raise ConfigError(
            f"attack.relearn.texts must be a file, got {texts}, which is none; type attack.relearn.texts=FILE: one "
            'text per line (.txt), or one JSON string or object with "text" per line'
        )


def running_text_rows(texts: str) -> tuple[Row, ...]:
    """Returns the texts of a file as rows of running text without a prompt.

    A .txt file holds one text per line, other files have the format of corpora.

    Raises:
        ConfigError: the file does not exist.
        DataError: it cannot be read, or has another format.
    """
    check_texts_file(texts)
    file = Path(texts)
    found = read_text_lines(file) if file.suffix == ".txt" else read_texts(file)
    return tuple(Row(f"texts/{i}", "", text, fact=f"texts/{i}", plain=True) for i, text in enumerate(found) if text)


def _drawn_order(rows: Sequence[Row], repeat: Repeat, *words: str) -> list[int]:
    """Returns all indices of the rows in an order that the repeat draws."""
    return [i for _, i in sorted((repeat.seed_of("relearn", *words, row.id), i) for i, row in enumerate(rows))]
