"""Libraries that may be missing."""

import pytest

from audiolm.errors import InputError
from audiolm.eval.need import need


def test_a_missing_library_names_the_extra():
    with pytest.raises(InputError, match=r"audiolm-streamer\[eval\]") as error:
        need("no_such_library.inside")
    assert error.value.module == "no_such_library.inside"


def test_what_is_there_is_given():
    assert need("json").loads("1") == 1
