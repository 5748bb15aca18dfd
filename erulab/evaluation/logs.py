"""Reads published evaluation logs of TOFU row by row, in either of their two layouts.

locuslab/tofu writes eval_log_aggregated.json: one object per set of rows, with losses as lists or by row number.
open-unlearning writes TOFU_EVAL.json: one object per metric, with the values of the rows in value_by_index.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from erulab.errors import DataError
from erulab.json_files import read_json


class RowSet(Enum):
    """The four sets of rows that TOFU evaluates."""

    retain = "retain"
    real_authors = "real_authors"
    world_facts = "world_facts"
    forget = "forget"


class Quantity(Enum):
    """The quantities that a log holds per row: NLLs per token in nats, and ROUGE-L recall."""

    answer = "NLL of the answer"
    right = "NLL of the truth ratio's right answer"
    wrong = "NLL of each wrong answer"
    rouge = "ROUGE-L recall"


Column = dict[int, list[float]]  # row number -> one number, or one per wrong answer


@dataclass(frozen=True)
class Address:
    """Where a log keeps a quantity: the rows in `inner` of the object `outer`.

    field: key of the number inside a row; "" if the row is the number itself.
    """

    outer: str
    inner: str
    field: str = ""

    def __str__(self) -> str:
        return f"{self.outer}: {self.field or self.inner}"


_FILES = {
    RowSet.retain: "eval_log.json",
    RowSet.real_authors: "eval_real_author_wo_options.json",
    RowSet.world_facts: "eval_real_world_wo_options.json",
    RowSet.forget: "eval_log_forget.json",
}
_LOSSES = {
    Quantity.answer: "avg_gt_loss",
    Quantity.right: "avg_paraphrased_loss",
    Quantity.wrong: "average_perturb_loss",
    Quantity.rouge: "rougeL_recall",
}
_PREFIXES = {RowSet.retain: "retain", RowSet.real_authors: "ra", RowSet.world_facts: "wf", RowSet.forget: "forget"}
_METRICS = {
    Quantity.answer: "Q_A_Prob",
    Quantity.right: "Q_A_PARA_Prob",
    Quantity.wrong: "Q_A_PERT_Prob",
    Quantity.rouge: "Q_A_ROUGE",
}


def _tofu_address(rows: RowSet, quantity: Quantity) -> Address:
    return Address(_FILES[rows], _LOSSES[quantity])


def _open_unlearning_address(rows: RowSet, quantity: Quantity) -> Address:
    # Real authors and world facts have no paraphrase: the right answer is the answer.
    paraphrased = rows in (RowSet.retain, RowSet.forget)
    metric = _METRICS[Quantity.answer if quantity is Quantity.right and not paraphrased else quantity]
    field = "rougeL_recall" if quantity is Quantity.rouge else "avg_loss"
    return Address(f"{_PREFIXES[rows]}_{metric}", "value_by_index", field)


LAYOUTS: dict[str, Callable[[RowSet, Quantity], Address]] = {
    "locuslab/tofu": _tofu_address,
    "open-unlearning": _open_unlearning_address,
}


@dataclass(frozen=True)
class Log:
    """A log file whose layout is known; its content is checked when a column is read."""

    path: Path
    layout: str
    content: dict[str, Any]

    def columns(self, rows: RowSet, quantities: Sequence[Quantity], limit: int | None = None) -> list[Column]:
        """Returns one column per quantity of a set of rows; all columns have the same rows in the same order.

        Args:
            limit: number of rows that are kept, in order of row number; None keeps all.
        Raises:
            DataError: a column is missing, contains other things than finite numbers, or has other rows than the rest.
        """
        addresses = [LAYOUTS[self.layout](rows, quantity) for quantity in quantities]
        columns = [self._column(at, several=q is Quantity.wrong) for at, q in zip(addresses, quantities, strict=True)]
        for address, column in zip(addresses[1:], columns[1:], strict=True):
            if column.keys() != columns[0].keys():
                difference = rows_apart(columns[0], column)
                self._fail(f"{addresses[0]} and {address} are not of the same rows: {difference}; is the log whole?")
        return [{row: column[row] for row in sorted(column)[:limit]} for column in columns]

    def _column(self, address: Address, several: bool) -> Column:
        part = self._inside(self.content, address.outer, address.outer)
        values = self._inside(part, address.inner, f"{address.outer}: {address.inner}")
        if isinstance(values, list):
            values = dict(enumerate(values))
        if not isinstance(values, dict) or not values:
            self._fail(f"{address.outer}: {address.inner} must hold rows, in a list or by row number")
        column = {}
        for row, value in values.items():
            name = f"{address}, row {row}"
            numbers = self._inside(value, address.field, name) if address.field else value
            column[self._row_number(row, name)] = self._numbers(numbers, several, name)
        return column

    def _inside(self, part: Any, key: str, name: str) -> Any:
        if not isinstance(part, dict) or key not in part:
            self._fail(f"{name} is missing; name a whole log of {self.layout} with its rows, not a summary")
        return part[key]

    def _row_number(self, row: str | int, name: str) -> int:
        try:
            return int(row)
        except ValueError:
            self._fail(f"{name} is not a row number")

    def _numbers(self, value: Any, several: bool, name: str) -> list[float]:
        numbers = value if several else [value]
        if not isinstance(numbers, list) or not numbers or not all(map(_is_number, numbers)):
            wanted = "a list of finite numbers" if several else "a finite number"
            self._fail(f"{name} must be {wanted}, got {json.dumps(value)[:40]}")
        return [float(number) for number in numbers]

    def _fail(self, problem: str) -> NoReturn:
        raise DataError(f"{self.path}: {problem}")


def read_log(path: Path) -> Log:
    """Reads a log file and recognises its layout by its keys.

    Raises:
        DataError: the file cannot be read, or is not an evaluation log of TOFU.
    """
    content = read_json(path)
    if isinstance(content, dict):
        for layout, address in LAYOUTS.items():
            if any(address(rows, quantity).outer in content for rows, quantity in product(RowSet, Quantity)):
                return Log(path, layout, content)
    raise DataError(
        f"{path} is no evaluation log of TOFU: it must hold eval_log.json and others (eval_log_aggregated.json of "
        "locuslab/tofu), or forget_Q_A_PARA_Prob and others (TOFU_EVAL.json of open-unlearning)"
    )


def rows_apart(one: Mapping[int, object], other: Mapping[int, object]) -> str:
    """Describes how the row numbers of two columns differ."""
    if len(one) != len(other):
        return f"{len(one)} and {len(other)}"
    return f"row {min(one.keys() ^ other.keys())} is in one only"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
