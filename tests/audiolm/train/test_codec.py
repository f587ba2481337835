"""Training of the codec at a tiny size: dropout of levels, seeding, the loss goes down, runs go on and stop cleanly."""

import json
import signal
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from audiolm.bundle import weights_of
from audiolm.codec import CodecConfig, SoundStream
from audiolm.errors import ConfigError, InputError
from audiolm.train import codec as training
from audiolm.train.codec import CodecLosses, CodecRecipe, dropped_levels, learning, resume_codec, trainable_codec
from audiolm.train.loop import StoppedError, TrainingError, load_weights

TINY = CodecConfig(channels=2, residual_units=(1, 1, 1, 1), latent=16, levels=6, cardinality=32, coarse_levels=2)
RECIPE = CodecRecipe(minutes=1000, batch=2, seconds=0.32, rate=3e-3, warm_steps=10, seed_batches=4, steps=60)


def log(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def losses_of(path):
    return [row for row in log(path) if "mel" in row]


def test_dropped_levels_are_all_or_uniform():
    keep = dropped_levels(8000, 4, 0.5, torch.Generator().manual_seed(0))
    shares = torch.bincount(keep, minlength=5) / 8000
    assert shares[0] == 0
    torch.testing.assert_close(shares[1:], torch.tensor([0.125, 0.125, 0.125, 0.625]), atol=0.02, rtol=0)
    assert (dropped_levels(50, 4, 0.0, torch.Generator()) == 4).all()


def test_the_first_phase_has_no_quantizer_and_seeds_it():
    torch.manual_seed(0)
    losses = CodecLosses(trainable_codec(TINY), RECIPE, seeded=False)
    audio = torch.randn(2, 5120) * 0.1
    before = losses.rvq.codebooks.clone()
    assert set(losses(audio, warm=True).losses) == {"mel", "waveform"}
    assert torch.equal(losses.rvq.codebooks, before)
    after = losses(audio, warm=False).losses
    assert set(after) == {"mel", "waveform", "commitment"}
    assert not torch.equal(losses.rvq.codebooks, before)
    wanted = 4 * after["mel"] + 12 * after["waveform"] + after["commitment"]
    torch.testing.assert_close(losses.total(after), wanted)


def test_too_short_a_first_phase_is_an_error_and_saves_nothing(corpus, tmp_path):
    recipe = CodecRecipe(minutes=1000, batch=1, seconds=0.32, steps=1)
    with pytest.raises(TrainingError, match="32 codes cannot start from 16 latents"):
        training.train_codec([(corpus, 1.0)], tmp_path, TINY, recipe)
    assert not (tmp_path / "codec.safetensors").exists()


def test_a_codec_without_learning_codebooks_is_refused():
    with pytest.raises(ConfigError, match="cannot learn"):
        learning(SoundStream(TINY))


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("codec")
    return out, training.train_codec([(corpus, 1.0)], out, TINY, RECIPE)


def loss_of(codec, audio):
    return float(CodecLosses(codec, RECIPE, seeded=True)(audio).losses["mel"].detach())


def batch(corpus, seed=99):
    return next(training.crops([(corpus, 1.0)], 5120, 8, seed))


def test_the_loss_goes_down(corpus, trained):
    torch.manual_seed(0)
    untrained = trainable_codec(TINY)
    assert loss_of(trained[1], batch(corpus)) < 0.8 * loss_of(untrained, batch(corpus))


def test_the_file_holds_what_inference_needs_and_its_steps(trained):
    out, codec = trained
    again = SoundStream(TINY)
    load_weights(out / "codec.safetensors", again)
    assert all(torch.equal(a, b) for a, b in zip(weights_of(again).values(), weights_of(codec).values(), strict=True))
    with safe_open(out / "codec.safetensors", "pt") as file:
        assert file.metadata() == {"steps": "60"}
    assert log(out / "codec.jsonl")[-1]["step"] == 60


def test_a_run_from_weights_starts_near_the_old_loss(corpus, trained):
    out, codec = trained
    fresh = trainable_codec(TINY).train()
    resume_codec(fresh, out / "codec.safetensors")
    assert abs(loss_of(fresh, batch(corpus)) - loss_of(codec, batch(corpus))) < 0.1
    before = fresh.rvq.codebooks.clone()
    fresh.rvq(fresh.encoder.latent(batch(corpus)))
    assert float((fresh.rvq.codebooks - before).norm() / before.norm()) < 0.3  # the averages go on, not from nothing


def test_a_second_run_goes_on_at_once_with_codebooks(corpus, trained, tmp_path):
    recipe = CodecRecipe(minutes=1000, batch=2, seconds=0.32, steps=2)
    path = trained[0] / "codec.safetensors"
    training.train_codec([(corpus, 1.0)], tmp_path, TINY, recipe, weights_from=path)
    row = losses_of(tmp_path / "codec.jsonl")[-1]
    assert row["commitment"] > 0
    assert row["mel"] < 2 * losses_of(trained[0] / "codec.jsonl")[-1]["mel"]


def test_weights_of_another_size_are_refused(corpus, trained, tmp_path):
    other = CodecConfig(channels=4, residual_units=(1, 1, 1, 1), latent=16, levels=6, cardinality=32, coarse_levels=2)
    with pytest.raises(InputError, match="of other sizes"):
        training.train_codec([(corpus, 1.0)], tmp_path, other, RECIPE, weights_from=trained[0] / "codec.safetensors")


def test_ctrl_c_saves_and_ends(corpus, tmp_path, monkeypatch):
    real = training.crops

    def interrupted(*arguments):
        for count, audio in enumerate(real(*arguments)):
            if count == 20:
                signal.raise_signal(signal.SIGINT)
            yield audio

    monkeypatch.setattr(training, "crops", interrupted)
    with pytest.raises(StoppedError, match="SIGINT at step 21"):
        training.train_codec([(corpus, 1.0)], tmp_path, TINY, RECIPE)
    load_weights(tmp_path / "codec.safetensors", SoundStream(TINY))


def test_nan_leaves_the_last_checkpoint(corpus, trained, tmp_path, monkeypatch):
    path = tmp_path / "codec.safetensors"
    path.write_bytes((trained[0] / "codec.safetensors").read_bytes())
    kept = path.read_bytes()

    def poisoned(*_):
        while True:
            yield torch.full((2, 5120), float("nan"))

    monkeypatch.setattr(training, "crops", poisoned)
    with pytest.raises(TrainingError, match="NaN"):
        training.train_codec([(corpus, 1.0)], tmp_path, TINY, RECIPE, weights_from=path)
    assert path.read_bytes() == kept


SPECTRAL = CodecConfig(
    kind="spectral",
    window=320,
    width=24,
    encoder_blocks=1,
    decoder_blocks=1,
    latent=8,
    levels=4,
    cardinality=16,
    coarse_levels=2,
)
SHORT = CodecRecipe(minutes=1000, batch=2, seconds=0.32, rate=3e-3, warm_steps=5, seed_batches=4, steps=16)


@pytest.mark.parametrize("config", [SPECTRAL, TINY], ids=lambda config: config.kind)
def test_critics_join_and_the_run_resumes_to_the_bit(corpus, tmp_path, config):
    recipe = replace(SHORT, adversarial_weight=1.0, adversarial_after=0.4, critic_width=2)
    straight = training.train_codec([(corpus, 1.0)], tmp_path / "straight", config, recipe)
    rows = losses_of(tmp_path / "straight" / "codec.jsonl")
    assert rows[-1]["critic"] > 0
    assert rows[-1]["feature"] > 0
    cut(tmp_path / "cut", corpus, config, recipe, at=11)
    again = training.train_codec([(corpus, 1.0)], tmp_path / "cut", config, recipe)
    assert same_weights(straight, again)


def cut(out, corpus, config, recipe, at):
    """Stop a run by a signal after `at` steps."""
    real = training.crops

    def interrupted(*arguments):
        for count, audio in enumerate(real(*arguments)):
            if count == at + training.CALIBRATION * (config.kind == "spectral"):
                signal.raise_signal(signal.SIGINT)
            yield audio

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "crops", interrupted)
        with pytest.raises(StoppedError):
            training.train_codec([(corpus, 1.0)], out, config, recipe)


def same_weights(a, b):
    mine, other = weights_of(a), weights_of(b)
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


def test_a_spectral_codec_is_calibrated_and_learns(corpus, tmp_path):
    codec = training.train_codec([(corpus, 1.0)], tmp_path, SPECTRAL, replace(SHORT, steps=120))
    encoder, decoder = codec.encoder.net, codec.decoder.net
    assert torch.equal(encoder.mean, decoder.mean)
    assert float(encoder.scale) != 1.0
    torch.manual_seed(0)
    fresh = trainable_codec(SPECTRAL).eval()
    for net in (fresh.encoder.net, fresh.decoder.net):
        net.mean.copy_(encoder.mean)
        net.scale.copy_(encoder.scale)
    audio = batch(corpus)
    before, after = (CodecLosses(c, SHORT, seeded=True)(audio).losses["spectrum"] for c in (fresh, codec))
    assert float(after.detach()) < 0.8 * float(before.detach())
    assert [row for row in log(tmp_path / "codec.jsonl") if "perplexity_4" in row]
