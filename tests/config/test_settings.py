import dataclasses
from typing import Annotated, Literal

import pytest

from arcface_cakd.config import ConfigError, Range, check_settings
from arcface_cakd.config.settings import settings_of


@dataclasses.dataclass
class Constants:
    alpha: float
    beta: Annotated[float, Range(above=0)] = 2.0


class Component:
    def __init__(
        self,
        context,
        *,
        needed: int,
        count: Annotated[int, Range(1, 9)] = 3,
        kind: Literal["a", "b"] | None = "a",
        limit: Annotated[float, Range(0.0)] | None = None,
        margins: tuple[float, float] = (1.0, 0.5),
        flag: bool = False,
        constants: Constants | None = None,
    ): ...


def test_settings_are_the_keyword_only_parameters():
    assert "context" not in settings_of(Component)
    assert next(iter(settings_of(Component))) == "needed"


def test_defaults_are_filled_in():
    assert check_settings(Component, {"needed": 1}, "x") == {
        "needed": 1,
        "count": 3,
        "kind": "a",
        "limit": None,
        "margins": (1.0, 0.5),
        "flag": False,
        "constants": None,
    }


def test_values_are_converted():
    given = {"needed": 1, "limit": 2, "margins": [1, 0], "constants": {"alpha": 1}}
    checked = check_settings(Component, given, "x")
    assert checked["limit"] == 2.0 and isinstance(checked["limit"], float)
    assert checked["margins"] == (1, 0)
    assert checked["constants"] == Constants(1.0, 2.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "x lacks 'needed', which has no default: set x.needed"),
        ({"needed": 1, "cuont": 2}, "x has no setting 'cuont'; did you mean 'count'?"),
        ({"needed": 1.5}, "x.needed must be int, got 1.5"),
        ({"needed": True}, "x.needed must be int, got True"),
        ({"needed": 1, "count": 0}, "x.count must be at least 1 and at most 9, got 0"),
        ({"needed": 1, "kind": "c"}, "x.kind must be 'a' or 'b' or None, got 'c'"),
        ({"needed": 1, "limit": -1.0}, "x.limit must be at least 0, got -1.0"),
        ({"needed": 1, "limit": float("nan")}, "x.limit must be float or None, got nan"),
        ({"needed": 1, "margins": (1.0,)}, "x.margins must be list of 2 float, got (1.0,)"),
        ({"needed": 1, "flag": 1}, "x.flag must be bool, got 1"),
        (
            {"needed": 1, "constants": {"alpa": 1}},
            "x.constants has no setting 'alpa'; did you mean 'alpha'?",
        ),
        (
            {"needed": 1, "constants": {"alpha": 1, "beta": 0}},
            "x.constants.beta must be above 0, got 0",
        ),
        ({"needed": 1, "constants": 3}, "x.constants must be edict(alpha, beta) or None, got 3"),
        (
            {"needed": 1, "context": 2},
            "x has no setting 'context'; settings are keyword-only parameters, behind a *, and it "
            "is none; did you mean 'count'?",
        ),
        (3, "x must be an edict of settings, got 3"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(given, message):
    with pytest.raises(ConfigError) as raised:
        check_settings(Component, given, "x")
    assert str(raised.value) == message


def test_types_that_are_imported_for_type_checkers_alone():
    source = (
        "from __future__ import annotations\n"
        "class Mine:\n"
        "    def __init__(self, dims: Other, *, scale: float = 1.0, kind: Other = None): ..."
    )
    names = {"__name__": "mine"}
    exec(source, names)
    assert check_settings(names["Mine"], {"scale": 2}, "x") == {"scale": 2.0, "kind": None}
    with pytest.raises(ConfigError, match=r"x\.kind is declared as 'Other'.*in mine") as error:
        check_settings(names["Mine"], {"kind": 2}, "x")
    assert "\n" not in str(error.value)
