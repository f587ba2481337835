"""States as flat dictionaries: writing some slots only, saving one, putting it back."""

import numpy as np
import pytest
import torch
from contract import verify_contract

from audiolm.streaming import StreamingModule, assign, check_slot, copy_slot, load_slot, nested, save_slot, scoped


class Sum(StreamingModule):
    """The least streaming module: a running sum."""

    frame_size, rate_in, rate_out = 2, 2.0, 2.0

    def __init__(self, leak=False):
        super().__init__()
        self.leak = leak
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x.cumsum(1)

    def init_state(self, slots):
        return {"total": torch.zeros(slots)}

    def step(self, x, state, active=None):
        y = state["total"][:, None] + x.cumsum(1)
        assign(state, "total", y[:, -1], None if self.leak else active)
        return y


PIECES = [torch.randn(3, 2, generator=torch.Generator().manual_seed(i)) for i in range(20)]


def test_the_contract_holds_for_what_keeps_it_and_catches_what_does_not():
    verify_contract(Sum(), PIECES)
    with pytest.raises(AssertionError):
        verify_contract(Sum(leak=True), PIECES)
    with pytest.raises(AssertionError):
        verify_contract(Sum(), PIECES, parallel=lambda x: x.cumsum(1) + 0.01)


def test_assign_writes_the_active_slots_only():
    state = {"a": torch.zeros(3, 2)}
    assign(state, "a", torch.ones(3, 2), torch.tensor([True, False, True]))
    assert state["a"].tolist() == [[1, 1], [0, 0], [1, 1]]
    assign(state, "a", torch.full((3, 2), 7.0), None)
    assert (state["a"] == 7).all()


def test_nested_and_scoped_are_inverse_and_share_memory():
    parts = {"x": {"a": torch.zeros(1)}, "y": {"a": torch.ones(1), "b.c": torch.ones(2)}}
    flat = nested(parts)
    assert sorted(flat) == ["x.a", "y.a", "y.b.c"]
    assert scoped(flat, "y").keys() == parts["y"].keys()
    assert scoped(flat, "x")["a"].data_ptr() == parts["x"]["a"].data_ptr()


def test_a_saved_slot_is_a_copy_and_keeps_its_types():
    state = {"a": torch.arange(6.0).view(3, 2), "n": torch.tensor([1, 2, 3]), "on": torch.tensor([True, False, True])}
    saved = save_slot(state, 1)
    state["a"].zero_()
    assert {key: value.dtype for key, value in saved.items()} == {"a": np.float32, "n": np.int64, "on": np.bool_}
    load_slot(state, 2, saved)
    assert state["a"].tolist() == [[0, 0], [0, 0], [2, 3]]
    assert state["n"].tolist() == [1, 2, 2]
    assert state["on"].tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved.pop("a"), "'a'"),
        (lambda saved: saved.update(extra=np.zeros(1)), "extra"),
        (lambda saved: saved.update(a=np.zeros(3, np.float32)), "shape|needs"),
        (lambda saved: saved.update(a=np.zeros(2, np.float64)), "float64"),
        (lambda saved: saved.update(n=np.array(1.5, np.float32)), "int64"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_whole(change, message):
    state = {"a": torch.ones(3, 2), "n": torch.tensor([1, 2, 3])}
    saved = save_slot({"a": torch.zeros(3, 2), "n": torch.tensor([9, 9, 9])}, 0)
    change(saved)
    with pytest.raises(ValueError, match=message):
        load_slot(state, 0, saved)
    with pytest.raises(ValueError, match=message):
        check_slot(state, 0, saved)
    assert (state["a"] == 1).all()
    assert state["n"].tolist() == [1, 2, 3]


def test_copy_slot_resets_one_slot():
    state = {"a": torch.ones(3, 2)}
    copy_slot(state, 1, {"a": torch.zeros(1, 2)})
    assert state["a"].sum(1).tolist() == [2, 0, 2]


def test_device_is_that_of_the_weights():
    assert Sum().device == torch.device("cpu")
