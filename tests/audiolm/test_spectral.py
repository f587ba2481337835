"""The codec of magnitudes: streaming equals the whole, phases that fit, and the delay that is declared."""

import pytest
import torch
from contract import verify_contract
from sounds import sound

from audiolm.codec import CodecConfig, SoundStream, stream_reconstruct
from audiolm.errors import ConfigError
from audiolm.spectral import HOP, PhaseMaker, compress, expand, stft_magnitudes

SIZES = {"window": 320, "width": 24, "encoder_blocks": 2, "decoder_blocks": 2, "latent": 8}
CONFIG = CodecConfig(kind="spectral", levels=4, cardinality=16, coarse_levels=2, **SIZES)


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    codec = SoundStream(CONFIG).eval()
    codec.decoder.net.mean.fill_(-0.5)
    return codec


def ticks(count=8, slots=3):
    whole = torch.stack([torch.from_numpy(sound(count, seed)) for seed in range(slots)])
    return list(torch.split(whole, 640, -1))


def test_encoder_contract(codec):
    silence, full = torch.zeros(3, 640), torch.ones(3, 640)
    verify_contract(codec.encoder, ticks(), extremes=[silence, full, -full, 1e-30 * full])


@pytest.mark.parametrize("levels", [1, 4])
def test_decoder_contract_for_any_first_levels(codec, levels):
    rng = torch.Generator().manual_seed(0)
    codes = [torch.randint(0, 16, (3, 2, levels), generator=rng) for _ in range(8)]
    verify_contract(codec.decoder, codes, atol=0)


def test_latents_and_features_of_forward_and_steps_agree(codec):
    net, pieces = codec.encoder.net, ticks()
    with torch.inference_mode():
        state = net.init_state(3)
        steps = torch.cat([net.step(p[:, None], state) for p in pieces], -1)
        torch.testing.assert_close(steps, net(torch.cat(pieces, 1)[:, None]), atol=1e-4, rtol=0)


def test_the_parallel_net_makes_the_sound_of_the_steps_but_for_rounding(codec):
    net, z = codec.decoder.net, torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        state = net.init_state(2)
        steps = torch.cat([net.step(piece, state) for piece in torch.split(z, 2, -1)], -1)
        assert net(z).shape == steps.shape == (2, 1, 6 * 320)
        torch.testing.assert_close(net(z), steps, atol=1e-2, rtol=0)


def test_reconstruction_by_steps_equals_forward_to_the_bit(codec):
    x = torch.cat(ticks(5, 1), 1)
    with torch.inference_mode():
        codes = codec.encoder(x)
        state = codec.decoder.init_state(1)
        steps = torch.cat([codec.decoder.step(piece, state) for piece in torch.split(codes, 2, 1)], 1)
        assert torch.equal(steps, codec.decoder(codes))
        assert stream_reconstruct(codec, x).shape == x.shape


def test_frames_see_their_hop_and_nothing_after_it():
    window, x = torch.hann_window(320), torch.zeros(1, 240 + 4 * HOP)
    x[0, 240 + 2 * HOP :] = 1.0  # the third hop on
    magnitudes = stft_magnitudes(x, window)
    assert magnitudes.shape == (1, 4, 161)
    assert bool((magnitudes[:, :2] == 0).all())
    assert bool((magnitudes[:, 2:].amax(-1) > 0).all())


def test_compress_and_expand_are_inverse():
    magnitudes = torch.tensor([0.0, 1e-3, 0.5, 40.0])
    torch.testing.assert_close(expand(compress(magnitudes)), magnitudes, atol=1e-5, rtol=1e-4)
    assert bool((expand(torch.tensor([-9.0])) == 0).all())


@pytest.mark.parametrize("window", [320, 480])
def test_phases_fit_the_magnitudes(window):
    """Sound made of true magnitudes has those magnitudes again, and comes out at the declared delay."""
    t = torch.arange(16000) / 16000
    chord = sum(torch.sin(2 * torch.pi * f * t) for f in (220.0, 277.2, 329.6)) * torch.exp(-3 * (t % 0.25))
    maker, delay = PhaseMaker(window), window - HOP
    hann = torch.hann_window(window)
    padded = torch.nn.functional.pad(chord[None], (delay, 0))
    wanted = stft_magnitudes(padded, hann)
    out = maker.step(wanted, maker.init_state(1))
    assert out.shape == (1, 16000)
    made = stft_magnitudes(out[:, : len(chord)], hann)  # its frame t is centred where frame t of the chord is
    error = (made[:, 20:] - wanted[:, 20 : 20 + made.shape[1] - 20]).norm() / wanted.norm()
    assert float(error) < 0.15


def test_silence_stays_silent():
    maker = PhaseMaker(320)
    state = maker.init_state(2)
    assert bool((maker.step(torch.zeros(2, 12, 161), state) == 0).all())


def test_the_delay_is_declared():
    assert CONFIG.delay == 240
    assert SoundStream(CONFIG).decoder.sound_delay == 240
    assert CodecConfig().delay == 0


@pytest.mark.parametrize(
    "wrong", [{"kind": "wavelet"}, {"window": 500}, {"window": 80}, {"width": 0}, {"strides": (2, 4, 5, 5)}]
)
def test_sizes_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="codec"):
        CodecConfig(**({"kind": "spectral"} | wrong))
