import gc

import pytest

from streamer import memory


@pytest.fixture(autouse=True)
def as_before():
    yield
    gc.unfreeze()


def test_what_is_there_is_not_looked_through_again():
    before = gc.get_freeze_count()
    memory.keep()
    assert gc.get_freeze_count() > before
    assert len(gc.get_objects()) < gc.get_freeze_count()


def test_what_comes_afterwards_is_still_collected():
    memory.keep()
    cycle = []
    cycle.append(cycle)
    name = id(cycle)
    del cycle
    assert gc.collect() >= 1
    assert all(id(each) != name for each in gc.get_objects())
