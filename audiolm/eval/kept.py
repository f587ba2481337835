"""What each kind of tokens keeps: table 1 of the AudioLM paper (arXiv 2209.03143), on our tokens.

Semantic tokens should keep the phones and lose the voice; acoustic tokens the other way round, and alone give the sound
back. Of music, chroma and onsets stand where phones are of speech.

Sound is rebuilt from semantic tokens as well as a table can: each token becomes the mean of the codec's latents that
go with it, learned from other pieces, and the codec's decoder makes sound of those. The paper trained a decoder for it.
The mean latent of all stands beside, which knows nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiolm.errors import InputError
from audiolm.eval import probe
from audiolm.eval.clips import Held
from audiolm.eval.items import Spoken
from audiolm.eval.layers import QUANTIZED, codes, sweep
from audiolm.eval.reconstruction import MOST_LAG, TITLES, bit_rate, declared_delay, measure, reconstruct
from audiolm.eval.report import Cell, Goal, Progress, Section, quiet
from audiolm.eval.semantic import Heard, hear, speaker_probe
from audiolm.eval.stats import Estimate, estimate
from audiolm.parts import Parts
from audiolm.train.data import Corpus
from audiolm.train.shards import SCALE

Array = np.ndarray[Any, Any]
SEMANTIC, NOTHING = "semantic", "the mean of all"
MINUTES, LEAST = 30.0, 4  # of a corpus; pieces of 4 s
SOUND = {"speech": ("pesq_wb", "log_mel"), "music": ("log_mel",)}
COUNT = 2.0  # a token seen but twice counts half, as in probe.explained_by_clusters


@dataclass(frozen=True)
class Kept:
    """What was measured on one corpus, by kind of tokens; ``phones`` in percent, within and across speakers."""

    held: Held
    rates: dict[str, float]  # bit/s
    sound: dict[str, dict[str, Estimate]]
    pieces: int
    phones: dict[str, tuple[Estimate, Estimate]] = field(default_factory=dict)
    speakers: dict[str, float] = field(default_factory=dict)
    notes: dict[str, dict[str, float]] = field(default_factory=dict)
    spoken: Spoken | None = None


def acoustic(levels: int) -> str:
    """The name of the first ``levels`` levels of the codec in the table."""
    return f"acoustic, {levels} levels"


def kinds(parts: Parts) -> dict[str, int]:
    """Kinds of tokens, and of the acoustic ones how many levels: the coarse ones and all; 0 for the semantic ones."""
    config = parts.codec.config
    return {SEMANTIC: 0} | {acoustic(n): n for n in (config.coarse_levels, config.levels)}


def as_held(spoken: Spoken) -> Held:
    """The sounds of items as a corpus in memory; what cannot be read is left out.

    Raises:
        InputError: nothing can be read.
    """
    who = {item.clip: item.speaker for item in spoken.items}
    sounds: dict[str, Array] = {}
    for clip in who:
        try:
            sounds[clip] = spoken.sound(clip)
        except InputError:
            continue  # the sweep counts and names them
    if not sounds:
        raise InputError(f"{spoken.name}: none of the {len(who)} sounds can be read; give others")
    lengths = np.array([len(sound) for sound in sounds.values()], np.int64)
    index = np.stack((np.cumsum(lengths) - lengths, lengths), 1)
    whole = np.clip(np.round(np.concatenate(list(sounds.values())) * SCALE), -32768, 32767).astype(np.int16)
    return Held(spoken.name, "speech", Corpus(whole, index, list(sounds), [who[clip] for clip in sounds]))


# -- what is measured --


def kept_of(
    parts: Parts,
    held: Held,
    spoken: Spoken | None = None,
    *,
    clips: int = 16,
    cells: int | None = None,
    minutes: float = MINUTES,
    seed: int = 0,
    progress: Progress = quiet,
) -> Kept:
    """Everything of one corpus; phones of ``spoken``, if there are any.

    Of the ``minutes`` of the corpus that are heard, ``clips`` pieces of 4 s are rebuilt.

    Raises:
        InputError: the corpus has too little sound, or a library of the extra ``eval`` is not there.
    """
    progress(f"{held.name}: tokens")
    pieces = list(hear(parts, held.corpus, minutes, levels=None))
    if len(pieces) < LEAST:
        raise InputError(f"{held.name}: {len(pieces)} pieces of 4 s, and {LEAST} are needed; give more sound")
    rates = {SEMANTIC: parts.tokenizer.rate_out * math.log2(parts.tokenizer.config.clusters)}
    rates |= {name: bit_rate(parts.codec, n) for name, n in kinds(parts).items() if n}
    progress(f"{held.name}: sound of {min(clips, len(pieces) // 2)} pieces")
    found = Kept(held, rates, rebuilt(parts, pieces, SOUND[held.kind], clips), len(pieces), spoken=spoken)
    if held.kind == "music":
        found.notes.update(notes(parts, pieces))
    else:
        found.speakers.update(speakers(parts, pieces))
    if spoken is not None:
        names = {QUANTIZED: SEMANTIC} | {codes(n): name for name, n in kinds(parts).items() if n}
        swept = sweep(parts, spoken, cells=cells, kinds=list(names), seed=seed, progress=progress)
        found.phones.update({names[k]: (a.percent, b.percent) for k, (a, b) in swept.errors.items()})
    return found


def speakers(parts: Parts, pieces: Sequence[Heard]) -> dict[str, float]:
    """How often a linear probe names the speaker of 4 s, by kind of tokens, and by ``chance``; see the probe."""
    sizes = {
        name: parts.codec.config.cardinality if n else parts.tokenizer.config.clusters
        for name, n in kinds(parts).items()
    }
    tokens = {
        name: [_levels(parts, piece, n).flatten(1) if n else piece.semantic for piece in pieces]
        for name, n in kinds(parts).items()
    }
    return speaker_probe([piece.who for piece in pieces], tokens, sizes)


def notes(parts: Parts, pieces: Sequence[Heard]) -> dict[str, dict[str, float]]:
    """R2 of chroma and onsets by kind of tokens, learned from every other piece and taken on those between.

    By the mean of each semantic token, and by a linear map of the acoustic tokens' latents.
    """
    ticks = [len(piece.semantic) for piece in pieces]
    wanted = {
        "chroma": [probe.chroma(p.audio)[0, :n] for p, n in zip(pieces, ticks, strict=True)],
        "onsets": [
            probe.onset_strength(parts.tokenizer.mel(p.audio))[0, :n] for p, n in zip(pieces, ticks, strict=True)
        ],
    }
    found = {}
    for name, levels in kinds(parts).items():
        rows = [_latents(parts, piece, levels) if levels else piece.semantic for piece in pieces]
        ask = probe.linear_r2 if levels else probe.explained_by_clusters
        found[name] = {
            what: ask(*(torch.cat(list(x[at::2])) for at in (0, 1) for x in (rows, truth)))
            for what, truth in wanted.items()
        }
    return found


def _levels(parts: Parts, piece: Heard, levels: int) -> Tensor:
    """Codes ``[ticks, frames, levels]`` of a piece."""
    return piece.coarse.reshape(len(piece.coarse), -1, parts.codec.config.levels)[..., :levels]


def _latents(parts: Parts, piece: Heard, levels: int) -> Tensor:
    """Latents ``[ticks, frames * latent]`` of the first levels of a piece."""
    return parts.codec.rvq.decode(_levels(parts, piece, levels)).flatten(1)


@torch.inference_mode()
def rebuilt(
    parts: Parts, pieces: Sequence[Heard], measures: Sequence[str], clips: int
) -> dict[str, dict[str, Estimate]]:
    """How near the sound is that each kind of tokens gives, of up to ``clips`` pieces; learned from every other one."""
    learned, asked = pieces[::2], pieces[1::2]
    asked = [asked[i * len(asked) // clips] for i in range(clips)] if len(asked) > clips else asked
    table = token_latents(parts, learned)
    mean = table.mean(0, keepdim=True).expand_as(table)
    ends = [len(piece.semantic) * parts.tick for piece in asked]
    sounds = [piece.audio[0, :end].numpy() for piece, end in zip(asked, ends, strict=True)]
    made: dict[str, list[Array]] = {SEMANTIC: [sound_of(parts, table[piece.semantic]) for piece in asked]}
    levels = {name: n for name, n in kinds(parts).items() if n}
    both = [reconstruct(parts.codec, sound, list(levels.values())) for sound in sounds]
    made |= {name: [row[k] for row in both] for k, name in enumerate(levels)}
    made[NOTHING] = [sound_of(parts, mean[piece.semantic]) for piece in asked]
    return {name: _near(parts, list(zip(sounds, made[name], strict=True)), measures) for name in made}


def _near(parts: Parts, pairs: Sequence[tuple[Array, Array]], measures: Sequence[str]) -> dict[str, Estimate]:
    values, _ = measure(pairs, measures, declared_delay(parts.codec))
    return {name: estimate(each) for name, each in values.items()}


def token_latents(parts: Parts, pieces: Sequence[Heard]) -> Tensor:
    """The mean latents ``[clusters, frames * latent]`` of each semantic token, drawn to the mean of all where rare."""
    latents = torch.cat([_latents(parts, piece, parts.codec.config.levels) for piece in pieces])
    tokens = torch.cat([piece.semantic for piece in pieces])
    clusters = parts.tokenizer.config.clusters
    sums = torch.zeros(clusters, latents.shape[1]).index_add_(0, tokens, latents)
    counts = torch.bincount(tokens, minlength=clusters).float()[:, None]
    return (sums + COUNT * latents.mean(0)) / (counts + COUNT)


def sound_of(parts: Parts, latents: Tensor) -> Array:
    """Latents ``[ticks, frames * latent]`` as sound, with a silent end for what comes late."""
    decoder, size = parts.codec.decoder, parts.codec.config.latent
    tail = -(-MOST_LAG // parts.tick)
    frames = torch.cat((latents, latents[-1:].expand(tail, -1))).reshape(1, -1, size).transpose(1, 2)
    state = decoder.init_state(1)
    ticks = torch.split(frames, decoder.frame_size, 2)
    sound = torch.cat([decoder.net.step(tick, state, None)[:, 0] for tick in ticks], -1)
    return np.asarray((sound * decoder.OUTPUT_GAIN)[0].numpy())


# -- the section --


def kept(
    parts: Parts,
    held: Sequence[Held],
    spoken: Sequence[Spoken] = (),
    *,
    clips: int = 16,
    cells: int | None = None,
    minutes: float = MINUTES,
    seed: int = 0,
    progress: Progress = quiet,
) -> Section:
    """The section ``kept`` of the report, corpus by corpus; without any, of the sounds of ``spoken``.

    Phones of a corpus of speech are those of the items of its name, else of the first ``spoken``.

    Raises:
        InputError: there is nothing to measure, or what :func:`kept_of` raises.
    """
    corpora = list(held) or [as_held(each) for each in spoken[:1]]
    if not corpora:
        raise InputError("no sound; give --data with a corpus, FOLDER=speech or FOLDER=music")
    section = Section("kept", "What semantic and acoustic tokens keep")
    for each in corpora:
        items = None
        if each.kind == "speech" and spoken:
            items = next((s for s in spoken if s.name == each.name), spoken[0])
        _write(
            section,
            kept_of(parts, each, items, clips=clips, cells=cells, minutes=minutes, seed=seed, progress=progress),
        )
    return section


def _write(section: Section, found: Kept) -> None:
    name, music = found.held.name, found.held.kind == "music"
    columns, rows = ["tokens", "bit/s"], [[kind, f"{rate:.0f}"] for kind, rate in found.rates.items()]
    table: list[list[Cell]] = [[*row] for row in [*rows, [NOTHING, "0"]]]
    for title, values in _columns(found).items():
        columns.append(title)
        for row in table:
            row.append(values.get(str(row[0])))
    section.table(f"{name}: what is kept", columns, table)
    section.figures[name] = {
        "bit/s": found.rates,
        "sound": found.sound,
        "pieces": found.pieces,
        **({"notes": found.notes} if music else {"phones": _sides(found.phones), "speakers": found.speakers}),
    }
    section.goals += _goals(found)
    section.notes += _said(found)


def _columns(found: Kept) -> dict[str, Mapping[str, Cell]]:
    columns: dict[str, Mapping[str, Cell]] = {}
    if found.phones:
        for at, side in enumerate(("within", "across")):
            columns[f"phones: ABX error {side}, %"] = {kind: pair[at] for kind, pair in found.phones.items()}
    if found.speakers:
        columns["speaker named, %"] = {
            NOTHING if kind == "chance" else kind: 100 * value for kind, value in found.speakers.items()
        }
    for what in ("chroma", "onsets"):
        if found.notes:
            columns[f"{what} (R2)"] = {kind: values[what] for kind, values in found.notes.items()} | {NOTHING: 0.0}
    for key in SOUND[found.held.kind]:
        columns[TITLES[key]] = {kind: values[key] for kind, values in found.sound.items()}
    return columns


def _sides(phones: Mapping[str, tuple[Estimate, Estimate]]) -> dict[str, dict[str, Estimate]]:
    return {kind: {"within": within, "across": across} for kind, (within, across) in phones.items()}


def _goals(found: Kept) -> list[Goal]:
    """The paper's order: phones by the semantic tokens, voice and sound by the acoustic ones."""
    name, goals = found.held.name, []
    _, coarse, every = found.rates
    if found.phones:
        value, mark = (found.phones[kind][1].mean for kind in (SEMANTIC, coarse))
        goals.append(Goal(f"{name}: ABX error of semantic tokens across speakers, in percent", value, below=mark))
    if found.speakers:
        value, mark = (100 * found.speakers[kind] for kind in (SEMANTIC, coarse))
        goals.append(Goal(f"{name}: speaker named by semantic tokens, in percent", value, below=mark))
    value, mark = (found.sound[kind]["log_mel"].mean for kind in (every, SEMANTIC))
    return [*goals, Goal(f"{name}: log-mel distance of all acoustic tokens", value, below=mark)]


def _said(found: Kept) -> list[str]:
    name, size = found.held.name, next(iter(found.sound.values()))["log_mel"].n
    learned = found.pieces - found.pieces // 2
    way = f"Of a semantic token it has the mean latents that go with it in {learned} other pieces."
    said = [f"{name}: sound of {size} pieces of 4 s, rebuilt by the codec's decoder. {way}"]
    if found.spoken is not None:
        said.append(f"{name}: phones of {found.spoken.name}. {found.spoken.how}")
    if found.speakers:
        said.append(f"{name}: {found.speakers['speakers']:.0f} speakers, named from 4 s by a linear probe.")
    return said
