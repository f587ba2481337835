"""Tokenizing a corpus once: the stages train on tokens, which are small.

A token file is a safetensors of ``acoustic`` (int16 ``[frames, levels]``), ``semantic`` (int16 ``[ticks]``) and
``index`` (int64 ``[clips, 2]``: first tick and number of ticks), clips laid end to end. Clips of one folder (one
speaker) are joined in streams of up to ``longest`` seconds with short pauses, as one hears a speaker; a piece of music
stands alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from audiolm.codec import SoundStream
from audiolm.errors import InputError
from audiolm.tokenizer import SemanticTokenizer
from audiolm.train.data import RATE, TICK, Corpus
from audiolm.train.loop import read_tensors, save_tensors
from audiolm.train.shards import Array

TICKS_PER_HOUR = 25 * 3600


@dataclass(frozen=True)
class Tokens:
    """The tokens of a corpus."""

    acoustic: Tensor
    semantic: Tensor
    index: Tensor

    @classmethod
    def open(cls, path: str | Path) -> "Tokens":
        """Read a token file.

        Raises:
            InputError: it is not there or is no token file.
        """
        data = read_tensors(path)
        if set(data) != {"acoustic", "semantic", "index"}:
            raise InputError(f"{path} holds {sorted(data)}; a token file holds acoustic, semantic and index")
        if len(data["acoustic"]) != 2 * len(data["semantic"]):
            raise InputError(
                f"{path} holds {len(data['acoustic'])} acoustic frames for {len(data['semantic'])} ticks; "
                "expected two a tick: make it again with `audiolm train tokenize`"
            )
        return cls(data["acoustic"], data["semantic"], data["index"])

    @classmethod
    def join(cls, parts: Sequence["Tokens"]) -> "Tokens":
        """Several token files as one."""
        starts = np.cumsum([0] + [part.ticks for part in parts[:-1]])
        rows = [part.index + torch.tensor([[int(start), 0]]) for part, start in zip(parts, starts, strict=True)]
        return cls(torch.cat([p.acoustic for p in parts]), torch.cat([p.semantic for p in parts]), torch.cat(rows))

    @property
    def ticks(self) -> int:
        """Ticks of all clips."""
        return len(self.semantic)

    def check_crop(self, ticks: int) -> None:
        """Refuse a length that no clip has.

        Raises:
            InputError: every clip is shorter.
        """
        longest = int(self.index[:, 1].max())
        if longest < ticks:
            raise InputError(
                f"no clip has {ticks} ticks ({ticks / 25:.1f} s); the longest has {longest}: train with a shorter crop",
                ticks=ticks,
                longest=longest,
            )

    def crop(self, ticks: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A random crop from a clip that is long enough: acoustic ``[2 * ticks, levels]``, semantic ``[ticks]``, int64.

        Raises:
            InputError: no clip is.
        """
        self.check_crop(ticks)
        room = (self.index[:, 1] - ticks + 1).clamp_min(0).numpy()
        ends = np.cumsum(room)
        at = int(rng.integers(ends[-1]))
        i = int(np.searchsorted(ends, at, side="right"))
        start = int(self.index[i, 0]) + at - int(ends[i] - room[i])
        return self.acoustic[2 * start : 2 * (start + ticks)].long(), self.semantic[start : start + ticks].long()


class Streams(Sequence[Array]):
    """The clips of a corpus as float32 streams of about ``longest`` seconds, each read when it is asked for.

    Long clips are cut, short ones of one folder joined with pauses of 0.1 to 0.5 s.

    Attributes:
        lengths: of each stream, in samples.
    """

    def __init__(self, corpus: Corpus, longest: float = 70.0, seed: int = 0) -> None:
        self._corpus = corpus
        # Clips (or -1 for a pause) and their lengths, joined, and the part of the whole that is the stream.
        self._plans: list[tuple[list[tuple[int, int]], int, int]] = []
        rng, most = np.random.default_rng(seed), int(longest * RATE)
        held: list[tuple[int, int]] = []
        for i, size in enumerate(corpus.index[:, 1].tolist()):
            if held and (corpus.folder(i) != corpus.folder(i - 1) or sum(n for _, n in held) > most // 2):
                held = self._cut(held, most)
            pause = int(rng.integers(1600, 8000))
            held += [(i, size), (-1, pause)] if size < most // 2 else [(i, size)]
            if size >= most // 2:
                held = self._cut(held, most)
        self._cut(held, most)
        self.lengths = [stop - start for _, start, stop in self._plans]

    def _cut(self, held: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
        """Note what is held as streams of at most ``most`` samples where a long clip is in it, else as one."""
        whole = sum(size for _, size in held)
        step = most if max((size for _, size in held), default=0) >= most // 2 else max(1, whole)
        self._plans += [(held, start, min(start + step, whole)) for start in range(0, whole, step)]
        return []

    def __len__(self) -> int:
        return len(self._plans)

    @overload
    def __getitem__(self, which: int) -> Array: ...

    @overload
    def __getitem__(self, which: slice) -> list[Array]: ...

    def __getitem__(self, which: int | slice) -> Array | list[Array]:
        if isinstance(which, slice):
            return [self[i] for i in range(*which.indices(len(self)))]
        held, start, stop = self._plans[which]
        pieces, at = [], 0
        for clip, size in held:
            low, high = max(start - at, 0), min(stop - at, size)
            if low < high:
                sound = np.zeros(high - low, np.float32) if clip < 0 else self._corpus.clip(clip)[low:high]
                pieces.append(sound)
            at += size
        return np.concatenate(pieces)


def streams(corpus: Corpus, longest: float = 70.0, seed: int = 0) -> Streams:
    """The clips of a corpus as :class:`Streams`."""
    return Streams(corpus, longest, seed)


def encode_long(codec: SoundStream, audio: Tensor, chunk: int = 32000) -> Tensor:
    """Acoustic tokens ``[B, frames, levels]`` of a long sound ``[B, T]``, by steps of ``chunk`` samples.

    The whole at once does not fit the caches of a CPU.
    """
    state = codec.encoder.init_state(len(audio))
    return torch.cat([codec.encoder.step(piece, state) for piece in torch.split(audio, chunk, -1)], 1)


@torch.inference_mode()
def tokenize(
    codec: SoundStream, tokenizer: SemanticTokenizer, sounds: Sequence[Array], out: str | Path, *, hours: float = 1000.0
) -> Tokens:
    """Write the tokens of ``sounds`` to the file ``out``; stops after ``hours`` of sound.

    The tokens are those of the parallel forward, which agrees with the steps of inference.

    Raises:
        InputError: every sound is shorter than a second, or a vocabulary is too large for int16.
        TrainingError: the file cannot be written.
    """
    if max(codec.config.cardinality, tokenizer.config.clusters) > 1 << 15:
        raise InputError("token files hold int16: vocabularies of at most 32768 tokens")
    acoustic, semantic, rows, at = [], [], [], 0
    for sound in sounds:
        audio = torch.from_numpy(sound[: len(sound) // TICK * TICK])[None]
        if audio.shape[1] < (25 + tokenizer.config.lookahead) * TICK:
            continue
        words = tokenizer(audio)[0]
        acoustic.append(encode_long(codec, audio)[0, : 2 * len(words)].to(torch.int16))
        semantic.append(words.to(torch.int16))
        rows.append((at, len(words)))
        at += len(words)
        if at > hours * TICKS_PER_HOUR:
            break
    if not rows:
        raise InputError("nothing to tokenize: every clip is shorter than a second")
    data = {"acoustic": torch.cat(acoustic), "semantic": torch.cat(semantic), "index": torch.tensor(rows)}
    save_tensors(out, data)
    return Tokens(**data)
