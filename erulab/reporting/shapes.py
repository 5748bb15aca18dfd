"""The shapes of a run folder's files: what each must hold for a report to be made of it.

A shape takes a value and the key it stands under, and raises `WrongShape` for the first part that does not fit. Files
may hold more than their shapes name; what is named is what the report reads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

Shape = Callable[[Any, str], None]

LARGEST = 1e30  # no figure of a run is larger: more is a damaged digit, and plots cannot draw it
LARGEST_COUNT = 1e15  # rows, facts, steps
# Keys of every row of attacks.json.
ATTACK_KEYS = {"attack", "setting", "metric", "headline", "valid", "standing", "reason", "facts", "n", "note"}
STANDINGS = ("counts", "not_valid", "undefined", "not_run")
ATTACK_FIGURES = (
    *("target", "unlearned", "oracle", "attacked_target", "attacked_unlearned", "attacked_oracle"),
    *("knowledge_left", "knowledge_left_attacked", "low", "high", "recovered", "maintained_gap", "maintained_error"),
    *("steps", "flops", "seconds", "utility", "utility_attacked"),
)


class WrongShape(Exception):
    """A value that does not fit; the text says which key and what it must be."""


def anything(value: Any, key: str) -> None:
    """Accepts every value."""


def text(value: Any, key: str) -> None:
    """A text."""
    _require(isinstance(value, str), key, "a text", value)


def text_or_null(value: Any, key: str) -> None:
    """A text or null."""
    _require(value is None or isinstance(value, str), key, "a text or null", value)


def flag(value: Any, key: str) -> None:
    """A boolean."""
    _require(isinstance(value, bool), key, "true or false", value)


def figure(value: Any, key: str) -> None:
    """A number that a table and a plot can show, or null."""
    _require(value is None or _is_number(value), key, "a number or null", value)


def number(value: Any, key: str) -> None:
    """A number that a table and a plot can show."""
    _require(_is_number(value), key, "a number", value)


def count(value: Any, key: str) -> None:
    """A number of rows, facts or steps."""
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_COUNT
    _require(fits, key, "a count", value)


def scalar(value: Any, key: str) -> None:
    """A number, text, boolean or null."""
    _require(value is None or isinstance(value, bool | str) or _is_number(value), key, "a number, text or null", value)


def named_figure(value: Any, key: str) -> None:
    """A figure of scores.json: a scalar; those that count rows, facts or steps are counts."""
    scalar(value, key)
    name = key.rpartition(".")[2]
    counts = name.endswith(("/n", "_facts")) or name in ("kept/step", "kept/steps", "kept/facts")
    if counts and value is not None:
        _require(_is_number(value) and 0 <= value <= LARGEST_COUNT, key, "a count", value)


def plain(value: Any, key: str) -> None:
    """Objects with texts as keys, lists, numbers of any size, texts, booleans and null, as run.yaml holds them."""
    if isinstance(value, dict):
        for name, item in value.items():
            _require(isinstance(name, str), key, "an object with texts as keys", name)
            plain(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for item in value:
            plain(item, key)
    else:
        _require(value is None or isinstance(value, bool | int | float | str), key, "a number, text or null", value)


def list_of(item: Shape) -> Shape:
    """Returns the shape of a list, each of whose items has the shape `item`."""

    def check(value: Any, key: str) -> None:
        _require(isinstance(value, list), key, "a list", value)
        for place, one in enumerate(value):
            item(one, f"{key}[{place}]")

    return check


def dict_of(item: Shape) -> Shape:
    """Returns the shape of an object, each of whose values has the shape `item`."""

    def check(value: Any, key: str) -> None:
        _require(isinstance(value, dict), key, "an object", value)
        for name, one in value.items():
            item(one, f"{key}.{name}" if key else str(name))

    return check


def record(required: dict[str, Shape], optional: dict[str, Shape] | None = None) -> Shape:
    """Returns the shape of an object with these keys; others are not looked at."""

    def check(value: Any, key: str) -> None:
        _require(isinstance(value, dict), key, "an object", value)
        for name, shape in {**required, **(optional or {})}.items():
            where = f"{key}.{name}" if key else name
            if name in value:
                shape(value[name], where)
            elif name in required:
                raise WrongShape(f"{where} is missing")

    return check


def interval(value: Any, key: str) -> None:
    """The two ends of an interval."""
    _require(isinstance(value, list) and len(value) == 2, key, "[low, high]", value)
    figure(value[0], f"{key}[0]")
    figure(value[1], f"{key}[1]")


def depth(value: Any, key: str) -> None:
    """The content of uds.json: a gap per layer, and for each model what is gone per layer; empty if not measured."""
    if value == {}:
        return
    record({"gap": list_of(figure), "models": dict_of(record({"layers": list_of(figure)}))})(value, key)
    for name, model in value["models"].items():
        same = len(model["layers"]) == len(value["gap"]) and any(one is not None for one in model["layers"])
        _require(same, f"models.{name}.layers", f"{len(value['gap'])} figures, as gap", len(model["layers"]))
    _require("unlearned" in value["models"], "models", "an object with unlearned", list(value["models"]))


def attack_rows(value: Any, key: str) -> None:
    """The content of attacks.json: groups of rows, each of which begins with a headline."""
    list_of(attack_row)(value, key)
    _require(not value or value[0]["headline"], f"{key}[0].headline", "true, because a headline opens a group", False)
    for place, (row, following) in enumerate(itertools.pairwise(value)):
        closes = row["standing"] is None
        _require(
            not closes or following["headline"], f"{key}[{place + 1}].headline", "true behind a utility row", False
        )


def attack_row(value: Any, key: str) -> None:
    """A row of attacks.json."""
    if isinstance(value, dict) and (missing := sorted(ATTACK_KEYS - value.keys())):
        raise WrongShape(f"{key} has no {', '.join(missing)}: damaged, or written by another version of erulab")
    record(
        {
            **dict.fromkeys(("attack", "metric", "note"), text),
            **dict.fromkeys(("headline", "valid"), flag),
            **dict.fromkeys(ATTACK_FIGURES, figure),
            "setting": dict_of(anything),
            "reason": text_or_null,
            "n": count,
            "repeats": list_of(figure),
            "chosen": dict_of(list_of(dict_of(anything))),
            "attempts": list_of(attempt),
            "savings": dict_of(anything),
        }
    )(value, key)
    where = f"{key}.standing"
    if not value["headline"]:
        _require(
            value["standing"] in (None, *STANDINGS), where, f"null or one of {', '.join(STANDINGS)}", value["standing"]
        )
        return
    count(value["facts"], f"{key}.facts")
    _require(value["standing"] in STANDINGS, where, f"one of {', '.join(STANDINGS)}", value["standing"])
    if value["standing"] == "counts":
        number(value["knowledge_left_attacked"], f"{key}.knowledge_left_attacked")


attempt = record(
    {
        "chosen": dict_of(anything),
        "steps": number,
        **dict.fromkeys(("flops", "seconds", "knowledge_left_attacked"), figure),
        **dict.fromkeys(("attacked_target", "attacked_unlearned", "attacked_oracle"), figure),
    }
)
scores = dict_of(dict_of(named_figure))
intervals = dict_of(dict_of(interval))
samples = list_of(
    record({"suite": text, "prompt": text}, dict.fromkeys(("reference", "target", "unlearned", "oracle"), text_or_null))
)
alternatives = list_of(record({"prompt": text, "reference": text, "alternatives": list_of(text)}))
stages = dict_of(record({}, {"notes": list_of(text)}))
env = dict_of(anything)
ended = record({"code": count, "message": text}, {"rank": count})
metrics_line = record({"step": count}, {"request": text})
sweep = record({"jobs": list_of(record({"folder": text}, {"code": figure}))}, {"command": text_or_null})
search = record({"trials": list_of(record({}, {"folder": text}))})  # a trial without figures has none
config_values = record(
    {},
    {
        "stages": list_of(text),
        **dict.fromkeys(("model", "dataset", "method", "reward", "adversary", "report"), dict_of(anything)),
        **dict.fromkeys(("attack", "benchmark"), dict_of(anything)),
    },
)


def config(value: Any, key: str) -> None:
    """The content of run.yaml, as far as a report reads it."""
    plain(value, key)
    config_values(value, key)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _require(fits: bool, key: str, wanted: str, value: Any) -> None:
    if not fits:
        shown = repr(value)
        raise WrongShape(
            f"{key or 'the content'} must be {wanted}, got {shown if len(shown) < 40 else shown[:37] + '...'}"
        )
