"""What the semantic tokens know: phones and not the speaker, of speech; notes and onsets, of music.

Everything stands beside the same measure of the codec's tokens, since the coarse stage needs what those lack. Phones
are found by forced alignment where a manifest gives the text (:mod:`audiolm.eval.phones`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiolm.errors import InputError
from audiolm.eval import probe
from audiolm.eval.abx import Item, abx_error, across_cases, triphones, within_cases
from audiolm.eval.clips import Held, speaker_of
from audiolm.eval.mfcc import RATE as MFCC_RATE
from audiolm.eval.mfcc import mfcc
from audiolm.eval.phones import Phone, align_corpus, english_texts
from audiolm.eval.report import Cell, Goal, Progress, Section, quiet
from audiolm.parts import Parts
from audiolm.train.data import RATE, TICK, Corpus

GOAL, COARSE = 0.75, 4  # of MFCC's error; levels of the codec that stand for it
PIECE, LEAST_PIECES, MOST_MINUTES = 4 * RATE, 6, 30.0
TICK_RATE = 25.0


@dataclass(frozen=True)
class Heard:
    """A piece of held-out sound as the model's ears have it, rows by tick; ``coarse`` are the first acoustic levels."""

    who: str
    audio: Tensor  # [1, T]
    semantic: Tensor  # [ticks]
    coarse: Tensor  # [ticks, 2 * levels]


@torch.inference_mode()
def hear(parts: Parts, corpus: Corpus, minutes: float = MOST_MINUTES, levels: int | None = COARSE) -> Iterator[Heard]:
    """Pieces of 4 s of every clip in turn, ``minutes`` of them spread over the corpus; of all ``levels`` if None."""
    pieces = [(i, at) for i in range(len(corpus.names)) for at in range(0, int(corpus.index[i, 1]) - PIECE + 1, PIECE)]
    skip = max(1, round(len(pieces) * PIECE / RATE / 60 / minutes))
    for i, at in pieces[::skip]:
        audio = torch.from_numpy(corpus.clip(i)[at : at + PIECE])[None]
        tokens = parts.tokenizer(audio)[0]
        codes = parts.codec.encoder(audio)[0, :, :levels]
        coarse = codes.reshape(audio.shape[1] // TICK, -1)[: len(tokens)]
        yield Heard(speaker_of(corpus, i), audio, tokens, coarse)


@torch.inference_mode()
def phone_features(parts: Parts, corpus: Corpus, clips: set[str]) -> dict[str, tuple[float, dict[str, Any]]]:
    """Frames per second and features by clip, of everything whose ABX error is measured."""
    tokenizer, codec = parts.tokenizer, parts.codec
    rate = codec.config.frame_rate
    rates = {"MFCC": MFCC_RATE, "codec latents": rate, f"codec tokens, {COARSE} levels": rate}
    rates |= {"embeddings": TICK_RATE, "tokens": TICK_RATE}
    found: dict[str, dict[str, Any]] = {name: {} for name in rates}
    for i, name in enumerate(corpus.names):
        if name not in clips:
            continue
        sound = torch.from_numpy(corpus.clip(i)[: int(corpus.index[i, 1]) // TICK * TICK])
        latents, embedded = codec.encoder.latent(sound[None])[0], tokenizer.embed(sound[None])[0]
        coarse = codec.rvq.decode(codec.rvq.encode(latents)[:, :COARSE])
        codes = tokenizer.centroids[tokenizer.assign_clusters(embedded)]
        values = (mfcc(sound), latents, coarse, embedded - tokenizer.mean, codes)
        for into, value in zip(found.values(), values, strict=True):
            into[name] = value.numpy()
    return {name: (rates[name], features) for name, features in found.items()}


def phone_errors(parts: Parts, corpus: Corpus, items: list[Item], seed: int = 0) -> dict[str, tuple[float, float]]:
    """ABX error within and across speakers, by features."""
    cases = within_cases(items, seed=seed), across_cases(items, seed=seed)
    features = phone_features(parts, corpus, {item.clip for item in items})
    return {
        name: (abx_error(x, rate, items, cases[0]).error, abx_error(x, rate, items, cases[1]).error)
        for name, (rate, x) in features.items()
    }


def speaker_information(pieces: list[Heard], semantic: int, acoustic: int) -> dict[str, float]:
    """How often a linear probe names the speaker of 4 s by the shares of tokens, and by chance; empty for one speaker.

    See :func:`speaker_probe`; ``semantic`` and ``acoustic`` are the sizes of the vocabularies.
    """
    tokens = {"semantic": [piece.semantic for piece in pieces], "coarse": [piece.coarse for piece in pieces]}
    return speaker_probe([piece.who for piece in pieces], tokens, {"semantic": semantic, "coarse": acoustic})


def speaker_probe(
    who: Sequence[str], tokens: Mapping[str, Sequence[Tensor]], sizes: Mapping[str, int]
) -> dict[str, float]:
    """How often a linear probe names who speaks a piece, by each kind of ``tokens``, ``[ticks, ...]`` a piece.

    Of each speaker's pieces the first half is learned from, so that no clip is on both sides but at the seam. Beside
    the kinds stand ``chance`` and ``speakers``; empty where fewer than two have six pieces.
    """
    voices: dict[str, list[int]] = {}
    for i, name in enumerate(who):
        voices.setdefault(name, []).append(i)
    voices = {name: mine for name, mine in voices.items() if len(mine) >= LEAST_PIECES}
    if len(voices) < 2:
        return {}
    sides = [
        [(n, i) for n, v in enumerate(voices.values()) for i in (v[: len(v) // 2], v[len(v) // 2 :])[s]] for s in (0, 1)
    ]
    labels = [torch.tensor([n for n, _ in side]) for side in sides]
    found = {"chance": float(torch.bincount(labels[1]).max() / len(labels[1])), "speakers": float(len(voices))}
    for name, rows in tokens.items():
        bags = [torch.stack([probe.bags(rows[i], sizes[name]) for _, i in side]) for side in sides]
        found[name] = probe.probe_accuracy(bags[0], labels[0], bags[1], labels[1])
    return found


def note_information(parts: Parts, pieces: list[Heard]) -> dict[str, dict[str, float]]:
    """R2 of chroma and onsets by the mean of each semantic token, and of each code of the codec's first level.

    The means come from every other piece, the R2 from those between.
    """
    ticks = [len(piece.semantic) for piece in pieces]
    chroma = [probe.chroma(piece.audio)[0, :n] for piece, n in zip(pieces, ticks, strict=True)]
    mels = [parts.tokenizer.mel(piece.audio) for piece in pieces]
    onsets = [probe.onset_strength(mel)[0, :n] for mel, n in zip(mels, ticks, strict=True)]
    tokens = {
        "semantic": [piece.semantic for piece in pieces],
        "codec, level 1": [piece.coarse[:, 0] for piece in pieces],
    }
    return {
        name: {
            what: probe.explained_by_clusters(*(torch.cat(x[at::2]) for at in (0, 1) for x in (rows, wanted)))
            for what, wanted in (("chroma", chroma), ("onsets", onsets))
        }
        for name, rows in tokens.items()
    }


def semantic(
    parts: Parts,
    held: list[Held],
    *,
    manifest: str | Path | None = None,
    where: Mapping[str, str] | None = None,
    seed: int = 0,
    progress: Progress = quiet,
) -> Section:
    """The report's section on semantic tokens.

    Args:
        parts: the bundle's.
        held: held-out corpora.
        manifest: CSV with columns ``file``, as clips are named, and ``text``: ABX of the English ones is measured.
        where: columns of the manifest and the value they must have, such as ``{"tier": "A"}``.
        seed: of the ABX cases.
        progress: told what is done.

    Raises:
        InputError: no clip is long enough, the manifest cannot be read, or pocketsphinx is not there.
    """
    section = Section("semantic", "Semantic tokens")
    clusters = parts.tokenizer.config.clusters
    for each in held:
        progress(f"{each.name}: tokens")
        pieces = list(hear(parts, each.corpus))
        if not pieces:
            raise InputError(f"{each.name}: no clip is {PIECE / RATE:g} s long; give a corpus of longer clips")
        used = probe.usage(torch.cat([piece.semantic for piece in pieces]), clusters)
        figures: dict[str, Any] = {"usage": used}
        rows: list[list[Cell]] = [
            ["unigram entropy (nats)", used["entropy"]],
            ["perplexity", used["perplexity"]],
            ["repeats", used["repeats"]],
        ]
        section.table(f"{each.name}: use of the {clusters} tokens", ["measure", "value"], rows)
        if each.kind == "speech":
            figures["speaker"] = _speaker(
                section, each, speaker_information(pieces, clusters, parts.codec.config.cardinality)
            )
            if manifest is not None:
                progress(f"{each.name}: phones")
                phones = align_corpus(each.corpus, english_texts(manifest, **(where or {})))
                figures["abx"] = _phones(section, parts, each, phones, seed)
        else:
            figures["notes"] = _notes(section, each, note_information(parts, pieces))
        section.figures[each.name] = figures
    return section


def _speaker(section: Section, held: Held, found: dict[str, float]) -> dict[str, float]:
    if found:
        columns = ["semantic tokens", f"codec tokens, {COARSE} levels", "chance"]
        row = [found["semantic"], found["coarse"], found["chance"]]
        title = f"{held.name}: speaker named from 4 s by a linear probe, of {found['speakers']:.0f}"
        section.table(title, columns, [row])
        section.goals.append(Goal(f"{held.name}: speaker in semantic tokens", row[0], below=row[1]))
    return found


def _phones(section: Section, parts: Parts, held: Held, phones: Mapping[str, list[Phone]], seed: int) -> dict[str, Any]:
    names = {name: speaker_of(held.corpus, i) for i, name in enumerate(held.corpus.names)}
    items = triphones(phones, names.__getitem__)
    errors = phone_errors(parts, held.corpus, items, seed)
    rows: list[list[Cell]] = [[name, *pair] for name, pair in errors.items()]
    section.table(f"{held.name}: ABX error of {len(items)} triphones", ["features", "within", "across"], rows)
    for at, side in enumerate(("within", "across")):
        what = f"{held.name}: ABX error of embeddings {side} speakers"
        section.goals.append(Goal(what, errors["embeddings"][at], below=GOAL * errors["MFCC"][at]))
        section.goals.append(
            Goal(f"{what}, against codec latents", errors["embeddings"][at], below=errors["codec latents"][at])
        )
    said = len({names[name] for name in phones})
    section.notes.append(f"{held.name}: phones of {len(phones)} clips of {said} speakers, by pocketsphinx.")
    return {name: {"within": within, "across": across} for name, (within, across) in errors.items()}


def _notes(section: Section, held: Held, found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    rows: list[list[Cell]] = [[name, values["chroma"], values["onsets"]] for name, values in found.items()]
    section.table(f"{held.name}: variance explained by tokens (R2)", ["tokens", "chroma", "onsets"], rows)
    return found
