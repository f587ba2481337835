"""Tokenizing a corpus once: the stages train on tokens, which are small.

A token file is a safetensors of ``acoustic`` (int16 ``[frames, levels]``), ``semantic`` (int16 ``[ticks]``) and ``index`` (int64
``[clips, 2]``: first tick and number of ticks), clips laid end to end. Clips of one folder (one speaker) are joined in streams of up to
``longest`` seconds with short pauses, as one hears a speaker; a piece of music stands alone.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiolm.codec import SoundStream
from audiolm.errors import InputError
from audiolm.tokenizer import SemanticTokenizer
from audiolm.train.data import Array, Corpus


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
        if not Path(path).is_file():
            raise InputError(f"{path} is not there; make it with `audiolm train tokenize`")
        data = load_file(path)
        if set(data) != {"acoustic", "semantic", "index"}:
            raise InputError(f"{path} holds {sorted(data)}; a token file holds acoustic, semantic and index")
        return cls(data["acoustic"], data["semantic"], data["index"])

    @classmethod
    def join(cls, parts: list["Tokens"]) -> "Tokens":
        """Several token files as one."""
        starts = np.cumsum([0] + [part.ticks for part in parts[:-1]])
        rows = [part.index + torch.tensor([[int(start), 0]]) for part, start in zip(parts, starts, strict=True)]
        return cls(torch.cat([p.acoustic for p in parts]), torch.cat([p.semantic for p in parts]), torch.cat(rows))

    @property
    def ticks(self) -> int:
        return len(self.semantic)

    def crop(self, ticks: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A random crop: acoustic ``[2 * ticks, levels]`` and semantic ``[ticks]`` int64, from a clip that is long enough."""
        room = (self.index[:, 1] - ticks + 1).clamp_min(0).numpy()
        if room.sum() == 0:
            raise InputError(f"no clip has {ticks} ticks; the longest has {int(self.index[:, 1].max())}: train with a shorter crop")
        at = int(rng.integers(room.sum()))
        i = int(np.searchsorted(np.cumsum(room), at, side="right"))
        start = int(self.index[i, 0]) + at - int(room[:i].sum())
        return self.acoustic[2 * start : 2 * (start + ticks)].long(), self.semantic[start : start + ticks].long()


def streams(corpus: Corpus, longest: float = 70.0, seed: int = 0) -> list[Array]:
    """The clips of a corpus as streams of about ``longest`` seconds: long clips cut, short ones of one folder joined with pauses."""
    rng = np.random.default_rng(seed)
    most, out = int(longest * 16000), []
    held: list[Array] = []
    for i in range(len(corpus.names)):
        clip = corpus.clip(i)
        if held and (corpus.folder(i) != corpus.folder(i - 1) or sum(map(len, held)) > most // 2):
            out.append(np.concatenate(held))
            held = []
        pause = np.zeros(int(rng.integers(1600, 8000)), np.float32)
        held += [clip, pause] if len(clip) < most // 2 else [clip]
        if len(clip) >= most // 2:
            whole = np.concatenate(held)
            out += [whole[j : j + most] for j in range(0, len(whole), most)]
            held = []
    return out + ([np.concatenate(held)] if held else [])


def encode_long(codec: SoundStream, audio: Tensor, chunk: int = 32000) -> Tensor:
    """Acoustic tokens of a long sound by steps of ``chunk`` samples: the whole at once does not fit the caches of a CPU."""
    state = codec.encoder.init_state(len(audio))
    return torch.cat([codec.encoder.step(piece, state) for piece in audio.split(chunk, -1)], 1)


@torch.inference_mode()
def tokenize(
    codec: SoundStream, tokenizer: SemanticTokenizer, sounds: list[Array], out: str | Path, *, hours: float = 1000.0
) -> Tokens:
    """Tokens of ``sounds`` by the parallel forward, which agrees with the steps of inference; stops after ``hours`` of sound."""
    acoustic, semantic, rows, at = [], [], [], 0
    for sound in sounds:
        audio = torch.from_numpy(sound[: len(sound) // 640 * 640])[None]
        words = tokenizer(audio)[0]
        if len(words) < 25:
            continue
        acoustic.append(encode_long(codec, audio)[0, : 2 * len(words)].to(torch.int16))
        semantic.append(words.to(torch.int16))
        rows.append((at, len(words)))
        at += len(words)
        if at > hours * 90000:
            break
    if not rows:
        raise InputError("nothing to tokenize: every clip is shorter than a second")
    data = {"acoustic": torch.cat(acoustic), "semantic": torch.cat(semantic), "index": torch.tensor(rows)}
    save_file(data, out)
    return Tokens(**data)
