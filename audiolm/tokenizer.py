"""The semantic tokenizer: log-mel, a causal w2v-BERT conformer (arXiv 2108.06209), k-means over one of its layers; 25 tokens a second.

Token ``s`` covers tick ``s`` and hears ``lookahead`` ticks more. That look-ahead is taken once, at the features: the mel frames of ticks
``s .. s + lookahead`` enter together and every block behind is strictly causal. So a token is emitted ``lookahead`` ticks after its own
and is never revised. There are no statistics of batch or utterance; normalization is LayerNorm throughout.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.attention import Ring, RingAttention, RingStep, rotary, window_mask
from audiolm.conv import CausalConv1d
from audiolm.features import LogMel
from audiolm.streaming import State, StreamingModule, assign


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of a tokenizer. ``layer`` blocks are run; ``layers`` were trained. ``window`` is in ticks."""

    mels: int = 80
    lookahead: int = 2
    layers: int = 6
    layer: int = 4
    width: int = 256
    heads: int = 4
    window: int = 100
    sinks: int = 4
    kernel: int = 15
    clusters: int = 512


class ConvModule(nn.Module):
    """The conformer's convolution (arXiv 2005.08100, figure 2) with a causal kernel and LayerNorm in place of BatchNorm."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm, self.inner_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.depthwise = CausalConv1d(width, width, kernel, groups=width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(F.glu(self.expand(self.norm(x)), -1).transpose(1, 2)).transpose(1, 2)
        return self.project(F.silu(self.inner_norm(y)))  # type: ignore[no-any-return]

    def step(self, x: Tensor, state: State, active: Tensor | None) -> Tensor:
        y = self.depthwise.step(F.glu(self.expand(self.norm(x)), -1)[..., None], state, active)[..., 0]
        return self.project(F.silu(self.inner_norm(y)))  # type: ignore[no-any-return]


def feed_forward(width: int) -> nn.Sequential:
    """The conformer's half-step feed-forward layer."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))


class ConformerBlock(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, LayerNorm. State: ``k``, ``v`` and ``past``."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.first, self.second = feed_forward(config.width), feed_forward(config.width)
        self.norm, self.final = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.attention = RingAttention(config.width, config.heads, config.window, config.sinks)
        self.conv = ConvModule(config.width, config.kernel)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        x = x + 0.5 * self.first(x)
        x = x + self.attention(self.norm(x), cos, sin, mask)
        x = x + self.conv(x)
        return self.final(x + 0.5 * self.second(x))  # type: ignore[no-any-return]

    def init_state(self, slots: int) -> State:
        return self.attention.init_state(slots) | self.conv.depthwise.init_state(slots)

    def step(self, x: Tensor, state: State, at: RingStep, active: Tensor | None) -> Tensor:
        x = x + 0.5 * self.first(x)
        x = x + self.attention.step(self.norm(x), state, at)
        x = x + self.conv.step(x, state, active)
        return self.final(x + 0.5 * self.second(x))  # type: ignore[no-any-return]


class SemanticEncoder(nn.Module):
    """Stacked mel frames to embeddings: ``[B, ticks, stacked] -> [B, ticks, width]``."""

    def __init__(self, config: TokenizerConfig, frames_per_tick: int = 4) -> None:
        super().__init__()
        self.config = config
        self.stacked = (config.lookahead + 1) * frames_per_tick * config.mels
        self.project = nn.Linear(self.stacked, config.width)
        self.blocks = nn.ModuleList(ConformerBlock(config) for _ in range(config.layers))

    def forward(self, features: Tensor, layer: int | None = None) -> list[Tensor]:
        """Embeddings after the projection and after each of the first ``layer`` blocks (all when None)."""
        x = self.project(features)
        length, width = features.shape[1], self.config.width // self.config.heads
        cos, sin = (part.to(x.device, x.dtype) for part in rotary(np.arange(length, dtype=np.int64), width))
        mask = window_mask(length, self.config.window, self.config.sinks, x.device)
        outputs = [x]
        for block in self.blocks[: self.config.layers if layer is None else layer]:
            outputs.append(block(outputs[-1], cos, sin, mask))
        return outputs


class SemanticTokenizer(StreamingModule):
    """Sound to semantic tokens, a tick a step: ``[B, 640] float32 -> [B] int64``, -1 during the first ``lookahead`` ticks."""

    centroids: Tensor

    def __init__(self, config: TokenizerConfig | None = None, tick: int = 640) -> None:
        super().__init__()
        self.config = config = config or TokenizerConfig()
        self.mel = LogMel(mels=config.mels, tick=tick)
        self.encoder = SemanticEncoder(config, tick // self.mel.hop)
        self.frame_size, self.delay = tick, config.lookahead * tick
        self.rate_in, self.rate_out = 16000, 16000 / tick
        # Distances are taken on centred, scaled embeddings: one loud dimension must not decide.
        self.register_buffer("mean", torch.zeros(config.width))
        self.register_buffer("scale", torch.ones(config.width))
        self.register_buffer("centroids", torch.randn(config.clusters, config.width))

    def stack(self, mel: Tensor) -> Tensor:
        """``[B, frames, mels] -> [B, ticks - lookahead, stacked]``: the mel frames of a tick and of those looked ahead."""
        per_tick = self.frame_size // self.mel.hop
        ticks = mel.reshape(len(mel), -1, per_tick * self.config.mels)
        span = self.config.lookahead + 1
        return torch.cat([ticks[:, i : ticks.shape[1] - span + 1 + i] for i in range(span)], -1)

    def assign_clusters(self, x: Tensor) -> Tensor:
        """Nearest centroid of embeddings ``[..., width] -> [...]`` int64."""
        y = (x - self.mean) * self.scale  # type: ignore[operator]
        return (self.centroids.square().sum(-1) - 2 * y @ self.centroids.T).argmin(-1)

    def embed(self, audio: Tensor, layer: int | None = None) -> Tensor:
        """Parallel embeddings ``[B, T] -> [B, T / tick - lookahead, width]`` of ``layer`` (default: the config's)."""
        layer = self.config.layer if layer is None else layer
        return self.encoder(self.stack(self.mel(audio)), layer)[-1]  # type: ignore[no-any-return]

    def forward(self, audio: Tensor) -> Tensor:
        return self.assign_clusters(self.embed(audio))

    def init_state(self, slots: int) -> State:
        c = self.config
        per_tick = self.frame_size // self.mel.hop * c.mels
        state = {"mel": self.mel.init_state(slots)["past"], "heard": torch.zeros(slots, dtype=torch.int64, device=self.device)}
        state["features"] = self.centroids.new_zeros(slots, c.lookahead, per_tick)
        ring = self._ring()
        state["held"] = ring.init_positions(slots, self.device)
        for i in range(c.layer):
            state |= {f"{k}.{i}": v for k, v in self.encoder.blocks[i].init_state(slots).items()}  # type: ignore[operator]
        return state

    def _ring(self) -> Ring:
        return self.encoder.blocks[0].attention.ring  # type: ignore[union-attr, return-value]

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        own = {"past": state["mel"]}
        mel = self.mel.step(x, own, active).flatten(1)
        stacked = torch.cat((state["features"], mel[:, None]), 1)
        assign(state, "features", stacked[:, 1:], active)
        ready = state["heard"] >= self.config.lookahead
        if active is not None:
            ready = ready & active
        # Positions count the tokens, so they come from the state; reading them is a copy to the host, which is free on the CPU.
        positions = (state["heard"] - self.config.lookahead).clamp_min(0).cpu().numpy()
        at = self._ring().begin(state["held"], positions, ready.cpu().numpy())
        y = self.encoder.project(stacked.flatten(1))
        for i in range(self.config.layer):
            block_state = {"k": state[f"k.{i}"], "v": state[f"v.{i}"], "past": state[f"past.{i}"]}
            y = self.encoder.blocks[i].step(y, block_state, at, ready)  # type: ignore[operator]
        assign(state, "heard", state["heard"] + 1, active)
        return torch.where(ready, self.assign_clusters(y), -1)
