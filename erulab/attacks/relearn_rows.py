"""Who is relearned and who is scored: the rows an attacker trains on, and the split that keeps the two apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from erulab import draws
from erulab.attacks.base import Inapplicable, Repeat, forget_suites
from erulab.attacks.halves import validation_half
from erulab.data.arrow_sequence import select_items
from erulab.data.reading import read_texts
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.data.stored_rows import row_column
from erulab.data.text_files import read_text_lines
from erulab.errors import ConfigError, DataError


class Source(Enum):
    """The rows an attacker trains on."""

    forget = "forget"
    retain = "retain"
    unrelated = "unrelated"  # rows that nobody learned, or texts of the user's own


class Split(Enum):
    """Whose facts are scored: those that were not relearned, or all of them."""

    disjoint = "disjoint"
    all = "all"


class Unit(Enum):
    """What a disjoint split keeps together."""

    fact = "fact"
    author = "author"


@dataclass(frozen=True)
class RelearnRows:
    """The rows of a relearning attack.

    mixed: each row of the source is followed by a retain row.
    texts: a file of texts that takes the place of the data set's own unrelated rows.
    """

    source: Source
    split: Split
    by: Unit
    mixed: bool
    texts: str | None

    @property
    def disjoint(self) -> bool:
        return self.split is Split.disjoint and self.source is Source.forget

    def check(self, benchmark: Benchmark, seed: int) -> None:
        """
        Raises:
            DataError: the split cannot be made, or leaves nothing to score; ConfigError: no file of texts.
            Inapplicable: the data set has no rows of this source.
        """
        named = f"attack.relearn.source={self.source.value}"
        if self.disjoint and len(self._units(benchmark)) < 2:
            raise DataError(
                f"attack.relearn.split={self.split.value} needs two {self.by.value}s or more to forget, one half to "
                "relearn and one to score; type attack.relearn.split=all"
            )
        if self.source is Source.forget and not row_column(benchmark.forget, "answered").all():
            raise DataError(f"{named}: rows with only a refusal teach nothing; type attack=none")
        if (self.mixed or self.source is Source.retain) and not benchmark.retain:
            asked = "attack.relearn.mixed=true" if self.mixed else named
            raise Inapplicable(f"{asked} trains on retain rows, and the data set has none")
        if not len(self._source_rows(benchmark)):
            raise Inapplicable(
                f"{named} needs rows that nobody learned, and this data set measures none (evaluation.suites); name a "
                "file of texts: attack.relearn.texts=FILE"
            )
        if not any(suite.rows for suite in self.scored(benchmark, Repeat(seed))):
            raise DataError(
                f"attack.relearn.split={self.split.value}: no evaluated forget row asks for a {self.by.value} of the "
                "half that is not relearned; type attack.relearn.split=all"
            )

    def available(self, benchmark: Benchmark, repeat: Repeat) -> int:
        """How many rows of the source can be trained on; mixed, each needs a retain row beside it."""
        own = len(self._own(benchmark, repeat))
        return min(own, len(benchmark.retain)) if self.mixed else own

    def trained(self, benchmark: Benchmark, repeat: Repeat, count: int) -> Sequence[Row]:
        """The first `count` rows of the source in an order of the repeat's own (a larger count only adds rows), in the
        phrasings that the request names; mixed, twice as many."""
        rows = select_items(self._source_rows(benchmark), self._own(benchmark, repeat)[:count])
        if not self.mixed:
            return rows
        beside = select_items(benchmark.retain, _drawn(benchmark.retain, repeat, "mixed")[:count])
        return tuple(row for pair in zip(rows, beside, strict=True) for row in pair)

    def scored(self, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        """The forget and held-out suites, cut to facts (or authors) that are not relearned where the split says so."""
        suites = forget_suites(benchmark)
        if not self.disjoint:
            return suites
        # Only rows of a unit that is known to be of the other half: one that no forget row shares (a heldout row
        # whose fact is not named) may phrase what was relearned.
        left = set(self._units(benchmark)) - self._relearned(benchmark, repeat)
        return tuple(
            replace(suite, rows=tuple(row for row in suite.rows if self._unit(row) in left)) for suite in suites
        )

    def _own(self, benchmark: Benchmark, repeat: Repeat) -> list[int]:
        """Places in the source's rows, in the order in which more samples add them."""
        rows = self._source_rows(benchmark)
        drawn = _drawn(rows, repeat)
        if not self.disjoint:
            return drawn
        relearned = self._relearned(benchmark, repeat)
        kept = {i for i, row in enumerate(rows) if self._unit(row) in relearned}
        return [i for i in drawn if i in kept]

    def _source_rows(self, benchmark: Benchmark) -> Sequence[Row]:
        if self.source is Source.forget:
            return benchmark.forget
        if self.source is Source.retain:
            return benchmark.retain
        if self.texts is not None:
            return text_rows(self.texts)
        learned = {row.fact_id for rows in (benchmark.forget, benchmark.retain) for row in rows}
        unseen = (row for suite in benchmark.suites if suite.role is Role.UNSEEN for row in suite.rows)
        return tuple(row for row in unseen if row.response.strip() and row.fact_id not in learned)

    def _relearned(self, benchmark: Benchmark, repeat: Repeat) -> set[str]:
        """Half of the facts (or authors) of the forget set: of two repeats one takes the half that the other leaves.

        Of the validation facts and of the others as many are relearned, so that facts of both are left to score: one
        half chooses learning rate and steps, the other is reported.
        """
        pair, fold = divmod(repeat.number, 2)
        kinds = self._units(benchmark, validation_half(benchmark, repeat.seed))
        drawn = sorted(
            kinds, key=lambda unit: (kinds[unit], draws.seed_of(repeat.seed, "attack", "relearn", pair, unit))
        )
        return set(drawn[1 - fold :: 2])

    def _units(self, benchmark: Benchmark, validation: frozenset[str] = frozenset()) -> dict[str, list[bool]]:
        """Unit of the forget set -> whether its facts are validation facts, others, or both."""
        kinds: dict[str, set[bool]] = {}
        for row in benchmark.forget:
            kinds.setdefault(self._unit(row), set()).add(row.fact_id in validation)
        return {unit: sorted(kind) for unit, kind in kinds.items()}

    def _unit(self, row: Row) -> str:
        return row.author or row.fact_id if self.by is Unit.author else row.fact_id


def check_file(texts: str | None) -> None:
    """
    Raises:
        ConfigError: it is no file.
    """
    if texts is not None and not Path(texts).is_file():
        raise ConfigError(
            f"attack.relearn.texts must be a file, got {texts}, which is none; type attack.relearn.texts=FILE: a text "
            'a line (.txt), or a JSON string or object with "text" a line'
        )


def text_rows(texts: str) -> tuple[Row, ...]:
    """The texts of a file, each a row of running text without a prompt: of a .txt a text a line, else as corpora.

    Raises:
        ConfigError, DataError: it cannot be read, or holds something else.
    """
    check_file(texts)
    file = Path(texts)
    found = read_text_lines(file) if file.suffix == ".txt" else read_texts(file)
    return tuple(Row(f"texts/{i}", "", text, fact=f"texts/{i}", plain=True) for i, text in enumerate(found) if text)


def _drawn(rows: Sequence[Row], repeat: Repeat, *words: str) -> list[int]:
    """All places in an order of the repeat's own."""
    return [i for _, i in sorted((repeat.seed_of("relearn", *words, row.id), i) for i, row in enumerate(rows))]
