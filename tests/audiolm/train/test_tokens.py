"""Token files: crops stay inside clips and in step, streams hold every sample, tokens are those of inference."""

import numpy as np
import pytest
import torch
from material import made_tokens, melody
from safetensors.torch import save_file

from audiolm.codec import CodecConfig, SoundStream
from audiolm.engine import Engine
from audiolm.errors import InputError
from audiolm.train.data import write_corpus
from audiolm.train.tokens import Tokens, streams, tokenize


def test_crops_stay_inside_a_clip_and_keep_sound_and_words_in_step():
    tokens = made_tokens(3, 40)
    rng = np.random.default_rng(0)
    starts = set()
    for _ in range(300):
        acoustic, semantic = tokens.crop(30, rng)
        assert acoustic.shape == (60, 6)
        assert semantic.shape == (30,)
        assert (torch.diff(semantic) % 24 == 1).all()  # a seam between clips would be a jump
        assert (torch.diff(acoustic[:, 0]) % 32 == 1).all()
        starts.add((int(semantic[0]), int(acoustic[0, 0])))
    assert starts == {((100 * c + t) % 24, (200 * c + 2 * t) % 32) for c in range(3) for t in range(11)}


def test_only_clips_that_are_long_enough_are_cropped():
    short, long = made_tokens(2, 10, seed=5), made_tokens(1, 20)
    tokens = Tokens.join([short, long])
    assert tokens.ticks == 40
    assert tokens.index.tolist() == [[0, 10], [10, 10], [20, 20]]
    acoustic, semantic = tokens.crop(20, np.random.default_rng(0))
    assert torch.equal(semantic, long.semantic.long())
    assert torch.equal(acoustic, long.acoustic.long())
    with pytest.raises(InputError, match=r"no clip has 21 ticks .* the longest has 20"):
        tokens.crop(21, np.random.default_rng(0))


def test_files_that_are_no_token_files_are_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    with pytest.raises(InputError, match="is not there"):
        Tokens.open(path)
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="holds acoustic, semantic and index"):
        Tokens.open(path)
    save_file({"acoustic": torch.zeros(3, 2), "semantic": torch.zeros(2), "index": torch.zeros(1, 2)}, path)
    with pytest.raises(InputError, match="two a tick"):
        Tokens.open(path)
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="not a readable"):
        Tokens.open(path)


def test_streams_join_a_speaker_and_cut_what_is_long(tmp_path):
    clips = [("a/1", melody(1, 0)), ("a/2", melody(1, 1)), ("b/1", melody(1, 2)), ("long", melody(9, 3))]
    corpus = write_corpus(tmp_path, clips)
    out = streams(corpus, longest=4.0)
    assert len(out) == 5
    assert 2.2 * 16000 <= len(out[0]) <= 3 * 16000  # two clips and two pauses
    assert np.array_equal(out[0][:16000], corpus.clip(0))
    assert np.array_equal(out[1][:16000], corpus.clip(2))
    assert [len(piece) for piece in out[2:]] == [64000, 64000, 16000]
    assert np.array_equal(np.concatenate(out[2:]), corpus.clip(3))


def test_tokens_are_those_of_live_steps(tiny_model, tmp_path):
    sounds = [melody(2, 0), melody(1, 1)[:9000], melody(3, 2)[:-100]]
    made = tokenize(tiny_model.codec, tiny_model.tokenizer, sounds, tmp_path / "t.safetensors")
    tokens = Tokens.open(tmp_path / "t.safetensors")
    assert torch.equal(made.semantic, tokens.semantic)
    lookahead = tiny_model.lookahead
    assert tokens.index.tolist() == [[0, 50 - lookahead], [50 - lookahead, 74 - lookahead]]  # the short one is left out
    engine = Engine(tiny_model)
    for sound, (first, count) in zip((sounds[0], sounds[2]), tokens.index.tolist(), strict=True):
        slot = engine.open()
        ticks = sound[: len(sound) // 640 * 640].reshape(-1, 640)
        heard = [(engine.encode({slot: tick})[slot], engine.listen({slot: tick})[slot]) for tick in ticks]
        live = [word for _, word in heard if word is not None]
        assert np.array_equal(tokens.semantic[first : first + count], live)
        acoustic = np.concatenate([codes for codes, _ in heard])[: 2 * count]
        assert np.array_equal(tokens.acoustic[2 * first : 2 * (first + count)], acoustic)
        engine.close(slot)


def test_there_must_be_something_to_tokenize(tiny_model, tmp_path):
    with pytest.raises(InputError, match="shorter than a second"):
        tokenize(tiny_model.codec, tiny_model.tokenizer, [melody(1, 0)[:9000]], tmp_path / "t.safetensors")
    config = CodecConfig(
        channels=1, residual_units=(0, 0, 0, 0), latent=1, levels=2, cardinality=40000, coarse_levels=1
    )
    with pytest.raises(InputError, match="at most 32768"):
        tokenize(SoundStream(config), tiny_model.tokenizer, [], tmp_path / "t.safetensors")
    one = tokenize(tiny_model.codec, tiny_model.tokenizer, [melody(2, s) for s in range(3)], tmp_path / "t", hours=1e-4)
    assert len(one.index) == 1
