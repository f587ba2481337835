"""AudioLM as a notebook sees it: sounds in any form, modes, settings, and errors that come at once."""

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from sounds import TICK, chunkings, cut, digest, sound, tiny

from audiolm import AudioLM
from audiolm.errors import AudioLMError, BundleError, ConfigError, InputError
from audiolm.model import ticks_of
from audiolm.parts import Parts
from audiolm.sampler import Sampling
from audiolm.tiny import tiny_parts

M = tiny()
PROMPT = sound(10)
MADE = 0.2
WHOLE = digest(M.continuation(PROMPT, MADE, seed=1))


@settings(max_examples=15)
@given(sizes=chunkings)
def test_streaming_in_any_chunks_equals_the_whole(sizes):
    out = np.concatenate(list(M.stream(cut(PROMPT, sizes), MADE, seed=1)))
    assert digest(out) == WHOLE


@pytest.mark.parametrize("sizes", [[1], [639], [640], [641], [10**6]])
def test_streaming_in_chosen_chunks_equals_the_whole(sizes):
    assert digest(M.continuation(iter(cut(PROMPT, sizes)), MADE, seed=1)) == WHOLE


@pytest.mark.parametrize("mode", ["acoustic_only", "reconstruct", "resynthesize"])
@settings(max_examples=4)
@given(sizes=chunkings)
def test_the_other_modes_do_not_mind_chunks_either(mode, sizes):
    options = {"seed": 1, "mode": mode, **({"voice": PROMPT} if mode == "resynthesize" else {})}
    assert np.array_equal(M.continuation(cut(PROMPT, sizes), MADE, **options), M.continuation(PROMPT, MADE, **options))


def test_chunks_come_a_tick_at_a_time_and_as_many_as_asked():
    chunks = list(M.stream(PROMPT, 0.4))
    assert [chunk.shape for chunk in chunks] == [(TICK,)] * 10
    assert all(chunk.dtype == np.float32 for chunk in chunks)
    assert len(M.continuation(PROMPT, 0.001)) == TICK


def test_seeds_repeat_and_differ():
    assert digest(M.continuation(PROMPT, MADE, seed=1)) == WHOLE
    assert digest(M.continuation(PROMPT, MADE, seed=2)) != WHOLE
    torch.manual_seed(123)
    assert digest(M.continuation(PROMPT, MADE, seed=1)) == WHOLE


def test_a_prompt_may_be_a_file_samples_a_tensor_or_pieces(tmp_path):
    path = tmp_path / "prompt.wav"
    soundfile.write(path, PROMPT, 16000, subtype="FLOAT")
    forms = [path, str(path), torch.from_numpy(PROMPT), [PROMPT], PROMPT.astype(np.float64)]
    assert {digest(M.continuation(form, MADE, seed=1)) for form in forms} == {WHOLE}
    int16 = np.round(PROMPT * 32768).clip(-32768, 32767).astype(np.int16)
    assert M.continuation(int16, MADE, seed=1).shape == (5 * TICK,)


def test_only_the_beginning_of_a_prompt_may_be_used_and_no_more_is_read():
    def endless():
        while True:
            yield PROMPT[:TICK]

    def exactly():
        yield PROMPT[: 5 * TICK]
        raise AssertionError("more was read than asked for")

    assert len(M.continuation(endless(), MADE, prompt_seconds=0.4)) == 5 * TICK
    short = M.continuation(PROMPT[: 5 * TICK], MADE, seed=1)
    assert np.array_equal(M.continuation(exactly(), MADE, seed=1, prompt_seconds=0.2), short)
    assert np.array_equal(M.continuation(PROMPT, MADE, seed=1, prompt_seconds=0.2), short)


def test_ticks_of_drops_or_pads_the_rest_and_never_exceeds_the_limit():
    x = PROMPT[: 5 * TICK + 100]
    assert len(list(ticks_of(x))) == 5
    padded = list(ticks_of(x, rest="pad"))
    assert len(padded) == 6
    assert np.array_equal(padded[5][:100], x[-100:])
    assert not padded[5][100:].any()
    assert len(list(ticks_of(x, 0.2, rest="pad"))) == 5
    assert len(list(ticks_of(x[:1], rest="pad"))) == 1


def test_reconstruct_gives_what_the_codec_gives():
    out = M.continuation(PROMPT, mode="reconstruct", gain="off")
    session = M.session(mode="reconstruct")
    with session:
        codec = M.parts.codec
        assert out.shape == PROMPT.shape
        with torch.inference_mode():
            whole = codec(torch.from_numpy(PROMPT)[None])[0].numpy()
    np.testing.assert_allclose(out, whole, atol=1e-4)


def test_resynthesize_is_as_long_as_its_words_and_needs_no_seconds():
    out = M.continuation(sound(7, 3), mode="resynthesize", voice=PROMPT, seed=1)
    assert out.shape == (7 * TICK,)
    assert not np.array_equal(out, M.continuation(sound(7, 3), mode="resynthesize", voice=sound(10, 9), seed=1))
    short = M.continuation(sound(7, 3), mode="resynthesize", voice=PROMPT, seed=1, prompt_seconds=0.2)
    assert not np.array_equal(out, short)


def test_dream_takes_no_prompt():
    assert M.continuation(None, MADE, mode="dream").shape == (5 * TICK,)


def test_settings_change_the_sound_and_can_be_given_by_stage():
    def made(**how):
        return digest(M.continuation(PROMPT, MADE, seed=1, **how))

    assert made(temperature=1.0, top_k=0, top_p=1.0, guidance=1.0) == WHOLE
    assert made(temperature=0.0) != WHOLE
    assert made(temperature={"fine": 0.1}) != WHOLE
    assert made(guidance={"coarse": 3.0}) != WHOLE
    chosen = M.sampling(temperature=0.5, top_k={"fine": 7})
    assert chosen["semantic"] == Sampling(0.5)
    assert chosen["fine"] == Sampling(0.5, top_k=7)
    assert M.sampling(top_p=None) == dict(M.parts.sampling)


def test_temperature_0_does_not_depend_on_the_seed():
    a, b = (M.continuation(PROMPT, MADE, seed=seed, temperature=0.0) for seed in (1, 2))
    assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": -1}, "seconds must be a number above 0"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": float("nan")}, "seconds.*nan"),
        ({"seconds": float("inf")}, "seconds"),
        ({"seconds": 1e9}, "604800"),
        ({"seconds": "ten"}, "'ten'"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"mode": "dreem"}, "did you mean 'dream'"),
        ({"mode": "duet"}, "live sound"),
        ({"mode": "dream"}, "takes no prompt"),
        ({"prompt": None}, "needs a prompt"),
        ({"prompt_seconds": 0.0}, "prompt_seconds"),
        ({"prompt_seconds": float("nan")}, "prompt_seconds"),
        ({"voice": PROMPT}, "resynthesize"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": {"corse": 1.0}}, "unknown stage 'corse'"),
        ({"top_k": 2.5}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"guidance": 1e9}, "guidance"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_heard(options, message):
    with pytest.raises(InputError, match=message):
        M.stream(**{"prompt": PROMPT, "seconds": 1.0, **options})


def test_a_bad_gain_is_refused():
    with pytest.raises(ConfigError, match="gain"):
        M.stream(PROMPT, gain="loud")
    with pytest.raises(InputError, match="unknown sampling setting 'heat'"):
        M.sampling(heat=1.0)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (np.zeros(0, np.float32), "shorter than one tick"),
        (np.zeros(1, np.float32), "shorter than one tick"),
        (np.zeros(639, np.float32), "shorter than one tick"),
        ([], "shorter than one tick"),
        (np.zeros((640, 2), np.float32), "one channel"),
        (np.zeros(640, np.int32), "int32"),
        ([0.1, 0.2], "one channel|shape"),
        (42, "file name"),
        ("nowhere.wav", "nowhere.wav"),
    ],
)
def test_prompts_that_cannot_be_used_say_why(prompt, message):
    with pytest.raises(AudioLMError, match=message):
        M.continuation(prompt, MADE)


def test_a_nan_prompt_gives_finite_sound():
    assert np.isfinite(M.continuation(np.full(5 * TICK, np.nan, np.float32), MADE)).all()


def test_an_abandoned_stream_gives_its_slot_back():
    stream = M.stream(PROMPT, 1.0)
    next(stream)
    stream.close()


def test_load_refuses_what_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"config\.json"):
        AudioLM.load(tmp_path)
    assert M.sample_rate == 16000


# -- parts --


def test_parts_know_the_clock():
    parts = M.parts
    assert (parts.tick, parts.frames_per_tick, parts.lookahead, parts.ahead) == (640, 2, 2, 2)
    assert tiny("delay").parts.ahead == 2 + 2  # one frame of coarse span and three of fine are two ticks more
    assert parts.names == ("encoder", "tokenizer", "decoder", "semantic", "coarse", "fine")
    assert not any(weight.requires_grad for weight in parts.codec.parameters())


def test_parts_of_different_models_are_refused():
    a, b = tiny_parts(), tiny_parts(ahead=1)
    wrong = {
        "semantic vocabulary": {**a.stages, "semantic": a.stages["fine"]},
        "coarse": {**a.stages, "coarse": a.stages["fine"]},
        "not given": {"semantic": a.stages["semantic"]},
    }
    for message, stages in wrong.items():
        with pytest.raises(ConfigError, match=message):
            Parts(a.codec, a.tokenizer, stages, a.sampling)
    with pytest.raises(ConfigError, match="sampling settings for the stage 'semantic'"):
        Parts(a.codec, a.tokenizer, a.stages, {})
    assert Parts(a.codec, a.tokenizer, {**a.stages, "coarse": b.stages["coarse"]}, a.sampling).ahead == 1
