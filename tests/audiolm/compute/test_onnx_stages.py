"""Stages as graphs against the reference: the same tokens, logits and states, and slots that do not know each other."""

import numpy as np
import pytest
from sounds import tiny

from audiolm.compute.eager import TorchCompute
from audiolm.compute.onnx.compute import OnnxCompute, rungs
from audiolm.compute.onnx.store import Store
from audiolm.engine import Engine
from audiolm.runner import Row
from audiolm.sampler import Sampling

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
STAGES = ("semantic", "coarse", "fine")
HOW = {
    "plain": Sampling(1.0),
    "greedy": Sampling(0.0),
    "top_k": Sampling(0.9, top_k=5),
    "top_p": Sampling(1.2, top_p=0.7),
    "both": Sampling(0.8, top_k=9, top_p=0.9),
}


def onnx(parts, precision="fp32"):
    return OnnxCompute(parts, precision, Store("tiny", ""))


def a_row(spec, position, seed, forced=0.3):
    """A row of which each level is forced with a likelihood."""
    rng = np.random.default_rng((seed, position))
    is_forced = rng.random(spec.levels) < forced
    cond = rng.integers(0, spec.cond_cardinality + 1, spec.cond_levels) if spec.cond_levels else None
    u = None if is_forced.all() else rng.random(spec.levels, np.float32)
    return Row(position, cond, rng.integers(0, spec.cardinality + 1, spec.levels), is_forced, u)


def run(engine, name, rows, seeds, skip=()):
    """Tokens of every slot, and its state at the end; a slot sits out the rows that `skip` says."""
    spec, out = engine.parts.stages[name].spec, {slot: [] for slot in seeds}
    for i in range(rows):
        batch = {slot: a_row(spec, len(out[slot]), seed) for slot, seed in seeds.items() if (slot, i) not in skip}
        for slot, tokens in engine.rows(name, batch).items():
            out[slot].append(tokens)
    return {slot: np.array(tokens) for slot, tokens in out.items()}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("pattern", ["depth", "delay"])
def test_tokens_are_those_of_the_reference(pattern, how):
    """Longer than the windows, with forced, sampled and mixed rows."""
    parts, seeds = tiny(pattern).parts, {0: 1, 1: 2}
    engines = [Engine(parts, 2, compute=compute) for compute in (TorchCompute(parts), onnx(parts))]
    for engine in engines:
        for slot in seeds:
            engine.open()
            for name in STAGES:
                engine.set_sampling(slot, name, HOW[how])
    for name in STAGES:
        reference, ours = (run(engine, name, 70, seeds) for engine in engines)
        for slot in seeds:
            np.testing.assert_array_equal(reference[slot], ours[slot])
            one, other = (engine.save_part(name, slot) for engine in engines)
            for key, value in one.items():
                np.testing.assert_allclose(other[key], value, atol=1e-4, err_msg=f"{name}.{key}")


def test_guidance_is_that_of_the_reference():
    parts = tiny().parts
    engines = [Engine(parts, 2, ("coarse",), compute) for compute in (TorchCompute(parts), onnx(parts))]
    for engine in engines:
        engine.open(), engine.open()
        engine.set_sampling(0, "coarse", Sampling(1.0, guidance=3.0))
    reference, ours = (run(engine, "coarse", 60, {0: 1, 1: 2}) for engine in engines)
    for slot in (0, 1):
        np.testing.assert_array_equal(reference[slot], ours[slot])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_neighbour_does_not_matter_to_the_bit(precision):
    parts = tiny().parts
    alone, beside = (Engine(parts, 3, compute=onnx(parts, precision)) for _ in range(2))
    for engine in (alone, beside):
        for _ in range(3):
            engine.open()
    beside.set_sampling(2, "fine", Sampling(0.7, top_k=3))
    for name in STAGES:
        wanted = run(alone, name, 50, {1: 7})[1]
        got = run(beside, name, 60, {0: 3, 1: 7, 2: 4}, skip={(1, i) for i in (5, 6, 20, 33, *range(50, 56))})[1]
        np.testing.assert_array_equal(wanted, got[:50])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_slot_that_sits_out_keeps_its_state_to_the_bit(precision):
    parts = tiny().parts
    engine = Engine(parts, 2, ("coarse",), onnx(parts, precision))
    engine.open(), engine.open()
    for name in STAGES:
        run(engine, name, 5, {0: 1, 1: 2})
        before = engine.save_part(name, 0)
        run(engine, name, 5, {1: 3})
        for key, value in engine.save_part(name, 0).items():
            np.testing.assert_array_equal(value, before[key])


def test_a_state_goes_on_under_the_other_engine():
    parts = tiny().parts
    torch_engine, ours = Engine(parts), Engine(parts, compute=onnx(parts))
    torch_engine.open(), ours.open()
    spec = parts.stages["coarse"].spec
    for i in range(50):
        torch_engine.rows("coarse", {0: a_row(spec, i, 1)})
    ours.load_part("coarse", 0, torch_engine.save_part("coarse", 0))
    for i in range(50, 90):
        rows = {0: a_row(spec, i, 1)}
        np.testing.assert_array_equal(torch_engine.rows("coarse", rows)[0], ours.rows("coarse", rows)[0])


@pytest.mark.parametrize("levels", [0, 1, 2, 3, 4])
def test_levels_that_are_forced_behind_cost_no_graph_of_all_levels(levels):
    parts = tiny().parts
    engines = [Engine(parts, compute=compute) for compute in (TorchCompute(parts), onnx(parts))]
    spec = parts.stages["fine"].spec
    forced = np.arange(spec.levels) >= levels
    for engine in engines:
        engine.open()
    for i in range(30):
        row = a_row(spec, i, 5, 0.0)
        row = Row(i, row.cond, np.full(spec.levels, spec.mask_token), forced, row.u if levels else None)
        one, other = (engine.rows("fine", {0: row})[0] for engine in engines)
        np.testing.assert_array_equal(one, other)
        assert (one[levels:] == spec.mask_token).all()


@pytest.mark.parametrize("pattern", ["depth", "delay", "flat"])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("int8", 0.15)])
def test_teacher_forced_logits_are_those_of_the_reference(pattern, precision, bound):
    parts = tiny(pattern).parts
    rng = np.random.default_rng(0)
    for name in STAGES:
        spec = parts.stages[name].spec
        tokens = rng.integers(0, spec.cardinality, (60, spec.levels))
        cond = rng.integers(0, spec.cond_cardinality, (60, spec.cond_levels)) if spec.cond_levels else None
        wanted, got = (compute.teach(name, tokens, cond) for compute in (TorchCompute(parts), onnx(parts, precision)))
        assert got.shape == (60, spec.levels, spec.cardinality)
        assert np.abs(wanted - got).max() < bound
        if precision == "int8" and pattern != "flat":
            assert np.abs(wanted - got).max() > 0


def test_rungs_are_halves_where_there_are_many_levels():
    assert rungs(tiny().parts.stages["semantic"].spec) == [1]
    assert rungs(tiny().parts.stages["fine"].spec) == [4]
    spec = tiny().parts.stages["fine"].spec
    assert rungs(type(spec)(**{**spec.__dict__, "levels": 8})) == [8, 4, 2, 1]
    assert rungs(type(spec)(**{**spec.__dict__, "levels": 12})) == [12, 6, 3, 1]
