"""Settings: what YAML may say, and how what is wrong is told."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from audiolm.errors import ConfigError
from audiolm.train.settings import fill, parse_yaml, put, read_yaml


@dataclass(frozen=True)
class Inner:
    size: int = 3
    rate: float = 0.5

    def __post_init__(self):
        if self.size > 100:
            raise ConfigError(f"size is {self.size}; expected at most 100")


@dataclass(frozen=True)
class Outer:
    name: str = "x"
    loud: bool = False
    kind: Literal["a", "b"] = "a"
    strides: tuple[int, ...] = (2, 4)
    pair: tuple[int, str] = (1, "one")
    steps: int | None = None
    only: dict[str, list[str]] = field(default_factory=dict)
    inner: Inner = Inner(size=7)


@dataclass(frozen=True)
class Needy:
    size: int


def test_what_is_given_is_taken_and_the_rest_stays():
    values = {"strides": [5], "steps": 4, "inner": {"rate": 2}, "only": {"tier": ["A", "B"]}, "kind": "b", "loud": True}
    made = fill(Outer, values, "")
    assert made == Outer(
        "x", loud=True, kind="b", strides=(5,), steps=4, only={"tier": ["A", "B"]}, inner=Inner(7, 2.0)
    )
    assert isinstance(made.inner.rate, float)
    assert fill(Outer, {"steps": None}, "").steps is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nam": "y"}, r"unknown key nam; known: name, loud, .*; did you mean name\?"),
        ({"inner": {"sice": 1}}, r"unknown key inner\.sice; known: size, rate; did you mean size\?"),
        ({"name": 3}, r"name is 3 \(a number\); expected text"),
        ({"loud": 1}, r"loud is 1 \(a number\); expected true or false"),
        ({"kind": "c"}, r"kind is 'c' \(text\); expected one of a, b"),
        ({"strides": 2}, r"strides is 2 \(a number\); expected a list"),
        ({"strides": [1, 2.5]}, r"strides\[1\] is 2\.5 \(a number\); expected a whole number"),
        ({"pair": [1]}, r"pair has 1 values; expected 2"),
        ({"steps": "many"}, r"steps is 'many' \(text\); expected a whole number"),
        ({"only": ["A"]}, r"only is \['A'\] \(a list\); expected a section"),
        ({"inner": 3}, r"inner is 3 \(a number\); expected a section of keys"),
        ({"inner": {"size": True}}, r"inner\.size is True \(a flag\); expected a whole number"),
        ({"inner": {"rate": None}}, r"inner\.rate is nothing; expected a number"),
        ({"inner": {"size": 101}}, r"inner: size is 101; expected at most 100"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(values, message):
    with pytest.raises(ConfigError, match=message):
        fill(Outer, values, "")


def test_a_value_that_must_be_given_is_missed():
    with pytest.raises(ConfigError, match=r"recipe is incomplete: .*size"):
        fill(Needy, {}, "recipe")


def test_yaml_is_read_as_people_write_it():
    assert parse_yaml("a: 1e-3\nb: [1, -2E5]\nc: 1", "here") == {"a": 0.001, "b": [1, -2e5], "c": 1}
    with pytest.raises(ConfigError, match="here, line 1: a is given twice"):
        parse_yaml("a: 1\na: 2", "here")
    with pytest.raises(ConfigError, match=r"here is no YAML: .*line 1"):
        parse_yaml("a: {", "here")
    with pytest.raises(ConfigError, match="here is no YAML"):
        parse_yaml("!!python/object/apply:os.system [date]", "here")


def test_a_file_must_be_a_short_mapping(tmp_path):
    path = tmp_path / "a.yaml"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(path)
    path.write_text("- a\n")
    with pytest.raises(ConfigError, match="holds a list; a preset is a mapping"):
        read_yaml(path)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(path)
    path.write_text("a: 1\n" + "#" * (1 << 18))
    with pytest.raises(ConfigError, match="is longer than"):
        read_yaml(path)


def test_put_reaches_any_depth():
    values = {"a": {"b": 1}, "c": 2}
    put(values, "a.b=2")
    put(values, "d.e=[1, two]")
    assert values == {"a": {"b": 2}, "c": 2, "d": {"e": [1, "two"]}}
    for wrong in ("a.b", "=1", "a..b=1"):
        with pytest.raises(ConfigError, match="is not PATH=VALUE"):
            put(values, wrong)
    with pytest.raises(ConfigError, match="c is a value, not a section"):
        put(values, "c.d=1")
