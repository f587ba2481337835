"""Errors carry what they speak of."""

import pickle

import pytest

from audiolm.errors import AudioLMError, BundleError, ConfigError, EngineError, InputError


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [(InputError, ValueError), (BundleError, ValueError), (ConfigError, ValueError), (EngineError, RuntimeError)],
)
def test_each_is_ours_and_a_builtin(kind, builtin):
    with pytest.raises(builtin, match="too long") as caught:
        raise kind("too long", seconds=9)
    assert isinstance(caught.value, AudioLMError)
    assert caught.value.seconds == 9
    assert caught.value.data == {"seconds": 9}


def test_an_unknown_attribute_is_said():
    with pytest.raises(AttributeError, match=r"'minutes'.*seconds"):
        _ = InputError("x", seconds=9).minutes


def test_pickle_keeps_the_data():
    again = pickle.loads(pickle.dumps(InputError("x", path="a.wav")))  # noqa: S301
    assert (type(again), str(again), again.path) == (InputError, "x", "a.wav")


def test_only_the_engine_is_not_to_blame_on_the_input():
    codes = {kind.__name__: kind("x").exit_code for kind in (InputError, BundleError, ConfigError, EngineError)}
    assert codes == {"InputError": 2, "BundleError": 2, "ConfigError": 2, "EngineError": 1}
