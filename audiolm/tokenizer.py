"""The semantic tokenizer: a causal w2v-BERT conformer and k-means over one of its layers, 25 tokens a second.

Log-mel frames, for music with semitone bands beside them, go through conformer blocks (arXiv 2108.06209); the nearest
centroid to one layer's output is the token.

Token ``s`` covers tick ``s`` and hears ``lookahead`` ticks more. That look-ahead is taken once, at the features: the
mel frames of ticks ``s .. s + lookahead`` enter together and every block behind is strictly causal. So a token is
emitted ``lookahead`` ticks after its own and is never revised. There are no statistics of batch or utterance;
normalization is LayerNorm throughout.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiolm.attention import Ring, RingAttention, RingStep, rotary, window_mask
from audiolm.conv import CausalConv1d
from audiolm.features import LogMel, LogPitch
from audiolm.sizes import check_heads, check_sizes
from audiolm.streaming import State, StreamingModule, assign


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of a tokenizer.

    ``layer`` blocks are run; ``layers`` were trained. ``window`` is in ticks; ``components`` of the embedding make the
    space of the clusters. ``pitches`` semitone bands are heard beside the ``mels`` (96 suit music, 0 speech).

    Raises:
        ConfigError: a size that cannot be.
    """

    mels: int = 80
    lookahead: int = 2
    layers: int = 6
    layer: int = 4
    width: int = 256
    heads: int = 4
    window: int = 100
    sinks: int = 4
    kernel: int = 15
    components: int = 64
    clusters: int = 512
    pitches: int = 0

    def __post_init__(self) -> None:
        check_sizes(
            "tokenizer",
            self,
            mels=(1, 512),
            pitches=(0, 96),
            components=(1, 4096),
            lookahead=(0, 8),
            layers=(1, 64),
            layer=(0, self.layers),
            width=(4, 8192),
            heads=(1, 128),
            window=(1, 1 << 16),
            sinks=(0, 64),
            kernel=(2, 255),
            clusters=(2, 1 << 16),
        )
        check_heads("tokenizer", self.width, self.heads, 4)


class ConvModule(nn.Module):
    """The conformer's convolution (arXiv 2005.08100, figure 2), causal, with LayerNorm in place of BatchNorm."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm, self.inner_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.depthwise = CausalConv1d(width, width, kernel, groups=width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, width] -> [B, T, width]``, a crop."""
        y = self.depthwise(F.glu(self.expand(self.norm(x)), -1).transpose(1, 2)).transpose(1, 2)
        return self.project(F.silu(self.inner_norm(y)))  # type: ignore[no-any-return]

    def step(self, x: Tensor, state: State, active: Tensor | None) -> Tensor:
        """``[B, width] -> [B, width]``, one tick."""
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
        """``[B, T, width] -> [B, T, width]``, a crop; the mask is that of :func:`window_mask`."""
        x = x + 0.5 * self.first(x)
        x = x + self.attention(self.norm(x), cos, sin, mask)
        x = x + self.conv(x)
        return self.final(x + 0.5 * self.second(x))  # type: ignore[no-any-return]

    def init_state(self, slots: int) -> State:
        """Fresh streams."""
        return self.attention.init_state(slots) | self.conv.depthwise.init_state(slots)

    def step(self, x: Tensor, state: State, at: RingStep, active: Tensor | None) -> Tensor:
        """``[B, width] -> [B, width]``, one tick."""
        x = x + 0.5 * self.first(x)
        x = x + self.attention.step(self.norm(x), state, at)
        x = x + self.conv.step(x, state, active)
        return self.final(x + 0.5 * self.second(x))  # type: ignore[no-any-return]


class SemanticEncoder(nn.Module):
    """Stacked features to embeddings: ``[B, ticks, stacked] -> [B, ticks, width]``."""

    def __init__(self, config: TokenizerConfig, frames_per_tick: int = 4) -> None:
        super().__init__()
        self.config = config
        self.stacked = (config.lookahead + 1) * (frames_per_tick * config.mels + config.pitches)
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
    """Sound to semantic tokens, a tick a step: ``[B, 640]`` float32 ``-> [B]`` int64, or -1 while there is none."""

    mean: Tensor
    whitening: Tensor
    centroids: Tensor

    def __init__(self, config: TokenizerConfig | None = None, tick: int = 640) -> None:
        super().__init__()
        self.config = config = config or TokenizerConfig()
        self.mel = LogMel(mels=config.mels, tick=tick)
        self.pitch = LogPitch(config.pitches, tick=tick) if config.pitches else None
        self.per_tick = tick // self.mel.hop * config.mels + config.pitches
        self.encoder = SemanticEncoder(config, tick // self.mel.hop)
        self.ring = Ring(config.window, config.sinks, config.heads, config.width // config.heads)
        self.frame_size, self.delay = tick, config.lookahead * tick
        self.rate_in, self.rate_out = 16000, 16000 / tick
        # Distances are taken in whitened principal components: else the few directions that carry loudness decide
        # alone, and pitch has no say (measured: chroma explained by the tokens of piano rises from 0 to 0.4,
        # docs/decisions.md).
        self.register_buffer("mean", torch.zeros(config.width))
        self.register_buffer("whitening", torch.eye(config.width, config.components))
        self.register_buffer("centroids", torch.randn(config.clusters, config.components))

    def features(self, audio: Tensor) -> Tensor:
        """Features by tick ``[B, T] -> [B, T / tick, per_tick]``: mel frames in their order, then semitone bands."""
        mel = self.mel(audio).reshape(len(audio), -1, self.per_tick - self.config.pitches)
        return mel if self.pitch is None else torch.cat((mel, self.pitch(audio)), -1)

    def stack(self, features: Tensor) -> Tensor:
        """``[B, ticks, per_tick] -> [B, ticks - lookahead, stacked]``: features of a tick and of those looked ahead."""
        span = self.config.lookahead + 1
        return torch.cat([features[:, i : features.shape[1] - span + 1 + i] for i in range(span)], -1)

    def assign_clusters(self, x: Tensor) -> Tensor:
        """Nearest centroid of embeddings ``[..., width] -> [...]`` int64."""
        y = (x - self.mean) @ self.whitening
        return (self.centroids.square().sum(-1) - 2 * y @ self.centroids.T).argmin(-1)

    def embed(self, audio: Tensor, layer: int | None = None) -> Tensor:
        """Parallel embeddings ``[B, T] -> [B, T / tick - lookahead, width]`` of ``layer`` (default: the config's)."""
        layer = self.config.layer if layer is None else layer
        return self.encoder(self.stack(self.features(audio)), layer)[-1]  # type: ignore[no-any-return]

    def forward(self, audio: Tensor) -> Tensor:
        """Whole crop at once: ``[B, T] -> [B, T / tick - lookahead]``."""
        return self.assign_clusters(self.embed(audio))

    def _blocks(self) -> list[ConformerBlock]:
        return [block for block in self.encoder.blocks[: self.config.layer] if isinstance(block, ConformerBlock)]

    def init_state(self, slots: int) -> State:
        """Fresh streams. ``heard`` counts ticks, ``features`` holds those inside the look-ahead."""
        state = {
            "mel": self.mel.init_state(slots)["past"],
            "heard": torch.zeros(slots, dtype=torch.int64, device=self.device),
            "features": self.centroids.new_zeros(slots, self.config.lookahead, self.per_tick),
            "held": self.ring.init_positions(slots),
        }
        if self.pitch is not None:
            state["pitch"] = self.pitch.init_state(slots)["past"]
        for i, block in enumerate(self._blocks()):
            state |= {f"{key}.{i}": value for key, value in block.init_state(slots).items()}
        return state

    def step(self, x: Tensor, state: State, active: Tensor | None = None) -> Tensor:
        """One tick: ``[B, tick]`` float32 ``-> [B]`` int64, the token of ``lookahead`` ticks ago or -1."""
        stacked = self.next_features(x, state, active)
        # Positions count the tokens, so they come from the state; the copy to the host is free on the CPU.
        positions = (state["heard"] - self.config.lookahead).cpu()
        assign(state, "heard", state["heard"] + 1, active)
        ready = positions >= 0 if active is None else (positions >= 0) & active.cpu()
        on = None if bool(ready.all()) else ready.numpy()
        at = self.ring.begin(state["held"], positions.clamp_min(0).numpy(), on, x.device)
        return torch.where(ready.to(x.device), self.assign_clusters(self.run(stacked, state, at)), -1)

    def next_features(self, x: Tensor, state: State, active: Tensor | None) -> Tensor:
        """One tick ``[B, tick]`` to what the encoder takes, ``[B, stacked]``."""
        features = self.mel.step(x, {"past": state["mel"]}, active).flatten(1)
        if self.pitch is not None:
            features = torch.cat((features, self.pitch.step(x, {"past": state["pitch"]}, active)[:, 0]), 1)
        stacked = torch.cat((state["features"], features[:, None]), 1)
        assign(state, "features", stacked[:, 1:], active)
        return stacked.flatten(1)

    def run(self, x: Tensor, state: State, at: RingStep) -> Tensor:
        """The blocks, for one token each ``[B, stacked] -> [B, width]``, in the slots that ``at`` says."""
        y: Tensor = self.encoder.project(x)
        for i, block in enumerate(self._blocks()):
            y = block.step(y, {"k": state[f"k.{i}"], "v": state[f"v.{i}"], "past": state[f"past.{i}"]}, at, at.active)
        return y
