"""Speech detection with silero-vad's network in onnxruntime.

The network takes chunks of 512 samples, each with the 64 before it, and carries a small recurrent state; ticks have
640. What is left over waits in the state for the next tick, so a score lags by at most 511 samples (32 ms). The
weights lie in the installed package silero-vad, which is never imported: it would import torch and torchaudio.

Knows no turns, and nothing of music.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from streamer.errors import ConfigError
from streamer.nodes.detect import Heard, Samples, clean, level_db

CHUNK: Final = 512
CONTEXT: Final = 64
MEMORY: Final = (2, 1, 128)  # shape of the recurrent state
_RATE: Final = np.array(16_000, dtype=np.int64)
_REMEDY: Final = (
    '; pip install "audiolm-streamer[vad]" brings it, or choose `detector: music`, which needs nothing besides numpy'
)


@dataclass(frozen=True, slots=True)
class SpeechSettings:
    """When speech begins and ends.

    Attributes:
        on: probability at which speech begins.
        off: probability below which it ends.

    Raises:
        ConfigError: not 0 < off <= on < 1.
    """

    on: float = 0.5
    off: float = 0.35

    def __post_init__(self) -> None:
        if not 0.0 < self.off <= self.on < 1.0:
            raise ConfigError(f"speech begins at `on` and ends below `off`: 0 < off <= on < 1, got {self}")


@dataclass(slots=True)
class SpeechState:
    """One stream: samples that wait for a whole chunk, the end of the last chunk, the network's memory."""

    held: Samples = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    context: Samples = field(default_factory=lambda: np.zeros(CONTEXT, dtype=np.float32))
    memory: Samples = field(default_factory=lambda: np.zeros(MEMORY, dtype=np.float32))
    active: bool = False


class SpeechDetector:
    """A `Detector` of speech in any language.

    Raises:
        ConfigError: onnxruntime or silero-vad is not installed.
    """

    def __init__(self, settings: SpeechSettings | None = None) -> None:
        self.settings = settings or SpeechSettings()
        self._network = _load(_weights())

    def init_state(self) -> SpeechState:
        """The state of one new stream."""
        return SpeechState()

    def step(self, tick: Samples, state: SpeechState) -> Heard:
        """One tick: one or two chunks. `score` is the largest probability, `active` whether any chunk held speech."""
        safe, before = clean(tick), state.active
        sound = np.concatenate([state.held, safe])
        whole = len(sound) // CHUNK * CHUNK
        state.held = sound[whole:].copy()
        scores, active = [], False
        for start in range(0, whole, CHUNK):
            scores.append(self._score(sound[start : start + CHUNK], state))
            state.active = scores[-1] >= (self.settings.off if state.active else self.settings.on)
            active |= state.active
        return Heard(active, level_db(safe), max(scores), active and not before)

    def _score(self, chunk: Samples, state: SpeechState) -> float:
        fed = {"input": np.concatenate([state.context, chunk])[None], "state": state.memory, "sr": _RATE}
        probability, state.memory = self._network.run(None, fed)
        state.context = chunk[-CONTEXT:].copy()
        return float(probability[0, 0])

    def save(self, state: SpeechState) -> dict[str, Any]:
        """The state as arrays and a number."""
        arrays = {"held": state.held.copy(), "context": state.context.copy(), "memory": state.memory.copy()}
        return {**arrays, "active": int(state.active)}

    def load(self, saved: dict[str, Any]) -> SpeechState:
        """The state again."""
        held, context, memory = (np.array(saved[key], dtype=np.float32) for key in ("held", "context", "memory"))
        return SpeechState(held, context, memory.reshape(MEMORY), bool(saved["active"]))


def _weights() -> Path:
    """Where silero-vad keeps its network; found without importing the package."""
    found = importlib.util.find_spec("silero_vad")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "data" / "silero_vad.onnx"
        if path.is_file():
            return path
    missing = "has no data/silero_vad.onnx" if found else "is not installed"
    raise ConfigError(f"detector 'speech' needs the package silero-vad, which {missing}{_REMEDY}")


def _load(weights: Path) -> Any:
    """The network on one thread, quiet."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"detector 'speech' needs onnxruntime, which cannot be imported ({error}){_REMEDY}"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
