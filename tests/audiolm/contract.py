"""One check that holds every StreamingModule to the whole contract."""

import numpy as np
import torch

from audiolm.streaming import StreamingModule, copy_slot, load_slot, save_slot


def verify_contract(module, pieces, *, parallel=None, atol=1e-4, extremes=()):
    """Hold `module` to the streaming contract.

    Args:
        pieces: inputs of successive steps, each `[slots, ...]`, at least three slots.
        parallel: what `forward` gives for the pieces joined along the second dimension; default: `module`.
        atol: how far `forward` may be from the steps; 0 for tokens.
        extremes: further inputs (full scale, silence, DC) that must leave everything finite.
    """
    with torch.inference_mode():
        _declares(module, pieces)
        whole = _run(module, pieces)
        _equals_forward(module, pieces, whole, parallel or module, atol)
        _keeps_idle_slots(module, pieces, whole)
        _survives_a_restore(module, pieces, whole)
        _starts_afresh(module, pieces, whole)
        _stays_finite_and_small(module, [*extremes, *pieces])


def _run(module, pieces, state=None):
    state = module.init_state(len(pieces[0])) if state is None else state
    return [module.step(piece, state).clone() for piece in pieces]


def _bits(state):
    return {key: value.clone() for key, value in state.items()}


def _same(a, b, slot):
    return all(torch.equal(a[key][slot], b[key][slot]) for key in a)


def _declares(module, pieces):
    assert isinstance(module, StreamingModule)
    assert module.frame_size > 0
    assert module.delay >= 0
    assert module.rate_in > 0
    assert module.rate_out > 0
    assert pieces[0].shape[1] == module.frame_size
    state = module.init_state(len(pieces[0]))
    assert all(len(value) == len(pieces[0]) for value in state.values())


def _join(outputs):
    return torch.stack(outputs, 1) if outputs[0].dim() == 1 else torch.cat(outputs, 1)


def _equals_forward(module, pieces, whole, parallel, atol):
    expected = parallel(torch.cat(pieces, 1))
    got = _join(whole)[:, -expected.shape[1] :]  # what comes before the declared delay is over is dropped
    assert got.shape == expected.shape
    if expected.is_floating_point():
        torch.testing.assert_close(got, expected, atol=atol, rtol=0)
    else:
        assert torch.equal(got, expected)


def _keeps_idle_slots(module, pieces, whole):
    """Slot 1 stalls now and then while its neighbours go on with other sound: it hears no difference."""
    slots = len(pieces[0])
    state, at = module.init_state(slots), 0
    rng = np.random.default_rng(1)
    while at < len(pieces):
        goes = bool(rng.integers(2))
        active = torch.tensor([(slot == 1 and goes) or (slot != 1 and bool(rng.integers(2))) for slot in range(slots)])
        x = pieces[int(rng.integers(len(pieces)))].clone()
        x[1] = pieces[at][1]
        before = _bits(state)
        y = module.step(x, state, active)
        assert all(_same(before, state, slot) for slot in range(slots) if not active[slot])
        if goes:
            assert torch.equal(y[1], whole[at][1])
            at += 1


def _survives_a_restore(module, pieces, whole):
    half, slots = len(pieces) // 2, len(pieces[0])
    state = module.init_state(slots)
    _run(module, pieces[:half], state)
    saved = save_slot(state, 0)
    assert {key: value.dtype for key, value in saved.items()} == {key: v.numpy().dtype for key, v in state.items()}
    other = module.init_state(slots)
    _run(module, pieces[half:], other)  # something else was in there
    load_slot(other, 0, saved)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(_run(module, pieces[half:], other), whole[half:], strict=True))


def _starts_afresh(module, pieces, whole):
    state = module.init_state(len(pieces[0]))
    _run(module, pieces[:3], state)
    copy_slot(state, 2, module.init_state(1))
    again = _run(module, pieces, state)
    assert all(torch.equal(a[2], b[2]) for a, b in zip(again, whole, strict=True))


def _stays_finite_and_small(module, pieces):
    state = module.init_state(len(pieces[0]))
    shapes = {key: (value.shape, value.dtype, value.data_ptr()) for key, value in state.items()}
    for y in _run(module, pieces, state):
        assert bool(y.isfinite().all())
    assert all(bool(value.isfinite().all()) for value in state.values())
    assert shapes == {key: (value.shape, value.dtype, value.data_ptr()) for key, value in state.items()}
