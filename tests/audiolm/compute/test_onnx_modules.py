"""The encoder, tokenizer and decoder as graphs against the reference."""

import functools

import numpy as np
import pytest
import torch
from sounds import sound

from audiolm.codec import CodecConfig, SoundStream
from audiolm.compute.onnx import running
from audiolm.compute.onnx.codec import decoder_graph, encoder_graph
from audiolm.compute.onnx.fourier import Fourier
from audiolm.compute.onnx.graph import Graph
from audiolm.compute.onnx.modules import ModuleSteps
from audiolm.compute.onnx.tokenizer import tokenizer_graph
from audiolm.streaming import load_slot, save_slot
from audiolm.tiny import tiny_parts
from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig

GRAPHS = {"encoder": encoder_graph, "tokenizer": tokenizer_graph, "decoder": decoder_graph}
KINDS = ("paper", "shipped")
PARTS = [(kind, part) for kind in KINDS for part in GRAPHS]
TICKS = 12


@functools.cache
def module(kind, part):
    """A small part: of the paper's kind of model, or of the kind that ships (music's, with semitone bands)."""
    torch.manual_seed(3)
    if kind == "paper":
        parts = tiny_parts()
        codec, tokenizer = parts.codec, parts.tokenizer
    else:
        codec, tokenizer = spectral(), music()
    made = {"encoder": codec.encoder, "tokenizer": tokenizer, "decoder": codec.decoder}[part]
    return made.eval().requires_grad_(requires_grad=False)


def music():
    """A small tokenizer that hears semitone bands, its centroids among the embeddings of a sound."""
    tokenizer = SemanticTokenizer(
        TokenizerConfig(mels=20, lookahead=1, layers=2, layer=2, width=32, heads=2, window=5, sinks=0, kernel=5,
                        components=16, clusters=24, pitches=96)
    )  # fmt: skip
    with torch.no_grad():
        embedded = tokenizer.embed(torch.from_numpy(sound(25))[None])[0]
        tokenizer.mean.copy_(embedded.mean(0))
        tokenizer.centroids.copy_((embedded - tokenizer.mean)[:24] @ tokenizer.whitening)
    return tokenizer


def spectral():
    """A small codec on spectra, its codebooks spread over the latents of a sound."""
    codec = SoundStream(
        CodecConfig(kind="spectral", window=480, width=32, encoder_blocks=2, decoder_blocks=2, latent=16, levels=6,
                    cardinality=32, coarse_levels=2)
    )  # fmt: skip
    with torch.no_grad():
        codec.encoder.net.mean.uniform_(-1, 0)
        codec.encoder.net.scale.fill_(1.3)
        codec.decoder.net.mean.copy_(codec.encoder.net.mean)
        codec.decoder.net.scale.fill_(0.5)
        residual = codec.encoder.latent(torch.from_numpy(sound(40))[None])[0]
        for level in range(6):
            codec.rvq.codebooks[level] = residual[torch.randperm(len(residual))[:32]]
            residual = residual - codec.rvq.codebooks[level][codec.rvq.nearest(residual, level)]
    return codec


@functools.cache
def loaded(kind, part, precision="fp32"):
    return running.session(GRAPHS[part](module(kind, part), precision))


def steps(kind, part, state, precision="fp32"):
    return ModuleSteps(part, module(kind, part), state, loaded(kind, part, precision))


def inputs(part, slots, seed=0, levels=6):
    """What a part hears, a tick after the other."""
    if part == "decoder":
        return list(np.random.default_rng(seed).integers(0, 32, (TICKS, slots, 2, levels)))
    sounds = np.stack([sound(TICKS, seed + i) for i in range(slots)])
    return list(sounds.reshape(slots, TICKS, 640).swapaxes(0, 1))


def reference(made, x, state, active=None):
    return made.step(torch.from_numpy(x), state, None if active is None else torch.from_numpy(active)).numpy()


def copied(state):
    return {name: value.clone() for name, value in state.items()}


def near(ours, theirs, tolerance=1e-4):
    for name, value in theirs.items():
        assert (ours[name].double() - value.double()).abs().max() <= tolerance, name


def like(state, new):
    """Write ``new`` into the arrays of ``state``, which graphs have bound."""
    for name, value in new.items():
        state[name].copy_(value)


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_every_tick_is_the_reference_s(kind, part):
    # From the reference's state each time: made-up phases drift apart from a rounding error on.
    made, slots = module(kind, part), 2
    theirs, ours = made.init_state(slots), made.init_state(slots)
    graph, seen = steps(kind, part, ours), set()
    for x in inputs(part, slots):
        like(ours, theirs)
        wanted, got = reference(made, x, theirs), graph.step(x, None)
        assert got.dtype == wanted.dtype
        assert got.shape == wanted.shape
        if part == "decoder":
            assert np.abs(got - wanted).max() < 1e-4
        else:
            assert np.array_equal(got, wanted)
            seen |= set(got.ravel().tolist())
        near(ours, theirs)
    assert part == "decoder" or len(seen) > 3


@pytest.mark.parametrize(("kind", "part"), [each for each in PARTS if each != ("shipped", "decoder")])
def test_a_run_by_itself_is_the_reference_s(kind, part):
    made = module(kind, part)
    theirs, ours = made.init_state(1), made.init_state(1)
    graph = steps(kind, part, ours)
    for x in inputs(part, 1):
        assert np.allclose(graph.step(x, None), reference(made, x, theirs), atol=1e-4)
    near(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [1, 2, 6])
def test_a_decoder_takes_any_first_levels(kind, levels):
    made = module(kind, "decoder")
    theirs, ours = made.init_state(1), made.init_state(1)
    graph = steps(kind, "decoder", ours)
    for whole in inputs("decoder", 1)[:2]:
        for x in (whole, whole[..., :levels]):
            like(ours, theirs)
            assert np.abs(graph.step(x, None) - reference(made, x, theirs)).max() < 1e-4


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_slots_that_wait_keep_their_state_to_the_bit(kind, part):
    made, slots = module(kind, part), 3
    theirs, ours = made.init_state(slots), made.init_state(slots)
    graph = steps(kind, part, ours)
    for i, x in enumerate(inputs(part, slots)):
        active, before = np.array([i % 2 == 0, i % 3 > 0, True]), copied(ours)
        like(theirs, ours)
        wanted, got = reference(made, x, theirs, active), graph.step(x, active)
        assert np.abs(got - wanted)[active].max() < 1e-4
        near(ours, theirs)
        for name, value in before.items():
            assert torch.equal(ours[name][~active], value[~active])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_neighbours_change_nothing(kind, part, precision):
    made, outs, states = module(kind, part), [], []
    for seed in (1, 2):
        state = made.init_state(3)
        graph = steps(kind, part, state, precision)
        mine, others = inputs(part, 3), inputs(part, 3, seed=10 * seed)
        for x, other in zip(mine, others, strict=True):
            other[1] = x[1]
        outs.append([graph.step(x, None)[1] for x in others])
        states.append(save_slot(state, 1))
    assert np.array_equal(*outs)
    for name, value in states[0].items():
        assert np.array_equal(value, states[1][name])


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_what_the_reference_saved_goes_on(kind, part):
    made, given = module(kind, part), inputs(part, 1)
    theirs, ours = made.init_state(1), made.init_state(2)
    graph = steps(kind, part, ours)
    for x in given[:6]:
        reference(made, x, theirs)
        graph.step(np.concatenate((x, x)), None)
    load_slot(ours, 1, save_slot(theirs, 0))
    x = given[6]
    wanted = reference(made, x, theirs)
    assert np.abs(graph.step(np.concatenate((x, x)), np.array([False, True]))[1] - wanted[0]).max() < 1e-4
    back = made.init_state(1)
    load_slot(back, 0, save_slot(ours, 1))
    near(back, theirs)


def test_a_decoder_in_int8_is_near():
    made = module("shipped", "decoder")
    theirs, ours = made.init_state(1), made.init_state(1)
    graph = steps("shipped", "decoder", ours, "int8")
    for x in inputs("decoder", 1):
        like(ours, theirs)
        got, wanted = graph.step(x, None), reference(made, x, theirs)
        assert np.abs(got - wanted).max() < 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("size", "wanted"), [(480, None), (400, None), (160, None), (1024, (40, 200)), (4096, (6, 93))]
)
def test_transforms_are_numpy_s(size, wanted):
    fourier = Fourier(size, None if wanted is None else np.arange(*wanted), within=0 if wanted else 80)
    g = Graph("fp32")
    sounds = g.reshape(g.input("x", ("B", size)), -1, fourier.rows, fourier.columns)
    spectrum = fourier.forward(g, sounds)
    turns = fourier.bins.shape[1]
    g.output("spectrum", spectrum, ("B", len(fourier.places), 1, 2 * turns))
    if wanted is None:
        g.output("back", g.reshape(fourier.inverse(g, spectrum), -1, size), ("B", size))
    x = np.random.default_rng(0).standard_normal((3, size)).astype(np.float32)
    made, *back = running.session(g.model()).run(None, {"x": x})
    theirs = np.abs(np.fft.rfft(x))[:, fourier.bins]
    assert np.allclose(np.hypot(made[:, :, 0, :turns], made[:, :, 0, turns:]), theirs, atol=1e-3)
    assert set(range(*(wanted or (0, size // 2 + 1)))) <= set(fourier.bins.ravel().tolist())
    for sound_again in back:
        assert np.allclose(sound_again, x, atol=1e-5)
