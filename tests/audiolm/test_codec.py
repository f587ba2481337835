"""The codec and its quantizer: streaming equals the whole, any first levels decode, codes are what they should be."""

import numpy as np
import pytest
import torch
from contract import verify_contract
from sounds import sound, tiny

from audiolm.codec import CodecConfig, SoundStream, stream_reconstruct
from audiolm.errors import ConfigError
from audiolm.rvq import ResidualVQ
from audiolm.train.quantizer import TrainableRVQ

CODEC = tiny().parts.codec


def pieces(ticks=8, slots=3):
    return [
        torch.from_numpy(np.stack([sound(ticks, s)[i * 640 : i * 640 + 640] for s in range(slots)]))
        for i in range(ticks)
    ]


def extremes():
    silence, full = torch.zeros(3, 640), torch.ones(3, 640)
    square = torch.where(torch.arange(640) % 2 == 0, 1.0, -1.0).expand(3, 640)
    return [silence, full, -full, square, 1e-30 * full]


def test_encoder_contract():
    with torch.inference_mode():
        verify_contract(CODEC.encoder, pieces(), extremes=extremes())


def test_latents_of_forward_and_steps_agree():
    with torch.inference_mode():
        state, parts = CODEC.encoder.init_state(3), pieces()
        steps = [CODEC.encoder.net.step(p[:, None] * CODEC.encoder.INPUT_GAIN, state).transpose(1, 2) for p in parts]
        torch.testing.assert_close(torch.cat(steps, 1), CODEC.encoder.latent(torch.cat(parts, 1)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("levels", [1, 3, 6])
def test_decoder_contract_for_any_first_levels(levels):
    rng = torch.Generator().manual_seed(0)
    codes = [torch.randint(0, 32, (3, 2, levels), generator=rng) for _ in range(8)]
    verify_contract(CODEC.decoder, codes, atol=1e-5)


def test_rates_and_sizes():
    assert (CODEC.config.hop, CODEC.config.frame_rate) == (320, 50)
    assert (CODEC.encoder.frame_size, CODEC.decoder.frame_size) == (640, 2)
    assert (CODEC.encoder.rate_in, CODEC.encoder.rate_out, CODEC.decoder.rate_out) == (16000, 50, 16000)
    assert CODEC.encoder.delay == CODEC.decoder.delay == 0
    assert CodecConfig().hop == 320


def test_reconstruction_by_steps_equals_forward():
    x = torch.from_numpy(sound(5))[None]
    with torch.inference_mode():
        torch.testing.assert_close(stream_reconstruct(CODEC, x, 3), CODEC(x, 3), atol=1e-5, rtol=0)
        assert CODEC(x).shape == x.shape


def test_encode_finds_the_nearest_code_at_each_level():
    torch.manual_seed(0)
    rvq, z = ResidualVQ(3, 8, 4), torch.randn(2, 5, 4)
    codes = rvq.encode(z)
    assert codes.shape == (2, 5, 3)
    residual = z
    for level in range(3):
        distances = (residual[..., None, :] - rvq.codebooks[level]).square().sum(-1)
        assert torch.equal(codes[..., level], distances.argmin(-1))
        residual = residual - rvq.codebooks[level][codes[..., level]]
    torch.testing.assert_close(rvq.decode(codes), z - residual, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": 1},
        {"levels": 10**9},
        {"coarse_levels": 12},
        {"cardinality": 0},
        {"channels": -1},
        {"latent": 2.5},
        {"strides": (2, 4)},
        {"strides": (0, 4, 5, 8)},
        {"residual_units": (9, 1, 1, 1)},
    ],
)
def test_sizes_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="codec"):
        CodecConfig(**wrong)


def test_a_codec_can_share_a_trainable_quantizer():
    config = CodecConfig(channels=2, residual_units=(0, 0, 0, 0), latent=4, levels=2, cardinality=4, coarse_levels=1)
    codec = SoundStream(config, TrainableRVQ(2, 4, 4))
    assert codec.encoder.rvq is codec.decoder.rvq is codec.rvq
    assert codec(torch.zeros(1, 640)).shape == (1, 640)
