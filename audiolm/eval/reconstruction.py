"""What the codec keeps: distances between recordings and their reconstructions by bit rate, beside other codecs.

Each system (a number of levels, a rate of Opus) gets the same crops. A lag that is not declared is found from all crops
together and taken out before anything is compared. Where PESQ finds no utterance in a crop, in whichever system, the
crop is left out of every system's PESQ and counted.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from audiolm.codec import SoundStream
from audiolm.eval.clips import Held, excerpts, whole
from audiolm.eval.codecs import OPUS_RATES, Peer, opus_peer
from audiolm.eval.distances import MEASURES, aligned, common_lag
from audiolm.eval.report import Cell, Goal, Progress, Section, quiet
from audiolm.eval.stats import Estimate, estimate
from audiolm.train.data import RATE, TICK, Corpus
from audiolm.train.shards import Array

LEVELS = (4, 6, 8, 12)
MOST_LAG = 960  # 60 ms: beyond any delay a decoder may declare
CHUNK = 30 * RATE
MOST_CLIPS = 120
TITLES = {
    "pesq_wb": "PESQ-WB",
    "stoi": "STOI",
    "si_sdr": "SI-SDR (dB)",
    "log_mel": "log-mel distance",
    "stft": "STFT distance",
}
Limits = dict[str, dict[int, tuple[float, float | None]]]
# By kind and kbit/s: the figures of Lyra V2, a shipped SoundStream, and ours to reach (none was set for its PESQ at 3).
LYRA: Limits = {"speech": {6: (2.77, 0.935), 3: (2.25, 0.904)}, "music": {6: (1.89, 0.70)}}
GOALS: Limits = {"speech": {6: (3.0, 0.95)}, "music": {6: (2.8, None)}}
PERPLEXITY_GOAL = 600 / 1024
Values = dict[str, list[float]]
Systems = Mapping[str, dict[str, Any]]  # name: rate in bit/s, lag in samples, values by measure and crop


def bit_rate(codec: SoundStream, levels: int) -> float:
    """Bits a second of the first ``levels`` levels."""
    return levels * math.log2(codec.config.cardinality) * codec.config.frame_rate


def levels_of(codec: SoundStream, wanted: Sequence[int] = LEVELS) -> list[int]:
    """Those of ``wanted`` that the codec has, and all it has."""
    return sorted({n for n in wanted if 0 < n < codec.config.levels} | {codec.config.levels})


def declared_delay(codec: SoundStream) -> int:
    """Samples by which the decoder says that its output comes late."""
    return int(getattr(codec.config, "delay", 0))


@torch.inference_mode()
def reconstruct(codec: SoundStream, sound: Array, levels: Sequence[int], tail: int = MOST_LAG) -> list[Array]:
    """The sound from its first n levels, for each n, with ``tail`` samples of silence after it for what comes late."""
    length = -(-(len(sound) + tail) // TICK) * TICK
    padded = np.zeros(length, np.float32)
    padded[: len(sound)] = sound
    codes = codec.encoder(torch.from_numpy(padded)[None])
    return [codec.decoder(codes[..., :n])[0].numpy() for n in levels]


@torch.inference_mode()
def perplexity(codec: SoundStream, corpus: Corpus, minutes: float = 8.0) -> list[float]:
    """Exp of the entropy of each codebook's use over ``minutes`` of the corpus, spread evenly."""
    counts = torch.zeros(codec.config.levels, codec.config.cardinality)
    picks = np.linspace(0, len(corpus.names), min(len(corpus.names), MOST_CLIPS), endpoint=False).astype(int)
    each = int(minutes * 60 * RATE / len(picks))
    for clip in (corpus.clip(int(i))[:each] for i in picks):
        for at in range(0, len(clip) - TICK + 1, CHUNK):
            codes = codec.encoder(torch.from_numpy(whole(clip[at : at + CHUNK]).copy())[None])[0]
            for q in range(codec.config.levels):
                counts[q] += torch.bincount(codes[:, q], minlength=codec.config.cardinality)
    p = counts / counts.sum(-1, keepdim=True).clamp_min(1)
    return [float(v) for v in (-(p * p.clamp_min(1e-12).log()).sum(-1)).exp()]


def measure(pairs: Sequence[tuple[Array, Array]], names: Sequence[str], declared: int = 0) -> tuple[Values, int]:
    """The measures ``names`` of each ``(real, made)`` pair, and the lag that was taken out."""
    # A declared delay is trusted: where phases are made up, waveforms correlate at many lags.
    lag = declared or common_lag(pairs, MOST_LAG)
    rows = [aligned(real, made, lag) for real, made in pairs]
    return {name: [MEASURES[name](*row) for row in rows] for name in names}, lag


def reconstruction(
    codec: SoundStream,
    held: Sequence[Held],
    *,
    clips: int = 16,
    seconds: float = 6.0,
    seed: int = 0,
    levels: Sequence[int] = LEVELS,
    opus_rates: Sequence[int] = OPUS_RATES,
    beside: Sequence[Peer] = (),
    measures: Sequence[str] = tuple(MEASURES),
    progress: Progress = quiet,
) -> Section:
    """The section ``reconstruction`` of the report, corpus by corpus; ``beside`` are codecs other than Opus.

    Raises:
        InputError: a corpus has no usable sound, or a library of the extra ``eval`` is not there.
    """
    section = Section("reconstruction", "Reconstruction", {"cardinality": codec.config.cardinality})
    for data in held:
        sounds = excerpts(data.corpus, clips, seconds, seed)
        progress(f"{data.name}: {len(sounds)} crops, codec")
        systems = _codec_systems(codec, sounds, levels, measures)
        for peer in (opus_peer(opus_rates), *beside):
            for rate in peer.rates:
                progress(f"{data.name}: {peer.name} at {rate / 1000:g} kbit/s")
                systems[f"{peer.name} {rate / 1000:g}"] = _peer_system(peer, sounds, rate, measures)
        left_out = _without_utterance(systems)
        _write(section, data, systems, perplexity(codec, data.corpus), left_out)
    return section


def _codec_systems(
    codec: SoundStream, sounds: Sequence[Array], levels: Sequence[int], measures: Sequence[str]
) -> dict[str, dict[str, Any]]:
    wanted = levels_of(codec, levels)
    made = [reconstruct(codec, sound, wanted) for sound in sounds]
    systems = {}
    for k, n in enumerate(wanted):
        pairs = [(sound, row[k]) for sound, row in zip(sounds, made, strict=True)]
        values, lag = measure(pairs, measures, declared_delay(codec))
        systems[f"{n} levels"] = {"rate": bit_rate(codec, n), "lag": lag, "values": values, "levels": n}
    return systems


def _peer_system(peer: Peer, sounds: Sequence[Array], rate: int, measures: Sequence[str]) -> dict[str, Any]:
    made = [peer.code(sound, rate) for sound in sounds]
    values, lag = measure([(sound, row[0]) for sound, row in zip(sounds, made, strict=True)], measures)
    return {"rate": float(np.mean([row[1] for row in made])), "lag": lag, "values": values}


def _without_utterance(systems: Systems) -> int:
    """Take crops without a PESQ in some system out of every system's; how many there are."""
    values = [system["values"]["pesq_wb"] for system in systems.values() if "pesq_wb" in system["values"]]
    if not values:
        return 0
    bad = ~np.isfinite(np.asarray(values)).all(0)
    for row in values:
        row[:] = [float("nan") if drop else value for value, drop in zip(row, bad, strict=True)]
    return int(bad.sum())


def _write(section: Section, data: Held, systems: Systems, used: Sequence[float], left_out: int) -> None:
    """Figures, tables, goals and notes of one corpus."""
    found = {name: {key: estimate(v) for key, v in system["values"].items()} for name, system in systems.items()}
    crops, size = len(next(iter(next(iter(systems.values()))["values"].values()))), section.figures["cardinality"]
    section.figures[data.name] = {
        "systems": {n: {"bit_rate": s["rate"], "lag": s["lag"], **found[n]} for n, s in systems.items()},
        "perplexity": list(used),
        "crops": crops,
        "crops_without_utterance": left_out,
    }
    keys = [key for key in TITLES if key in next(iter(found.values()))]
    rows: list[list[Cell]] = [
        [n, f"{s['rate'] / 1000:.1f}", *(found[n][key] for key in keys)] for n, s in systems.items()
    ]
    section.table(f"{data.name}, {crops} crops", ["system", "kbit/s", *(TITLES[key] for key in keys)], rows)
    section.notes += _notes(data.name, systems, used, size)
    if left_out:
        section.notes.append(f"{data.name}: PESQ found no utterance in {left_out} of {crops} crops; left out of it.")
    lowest = Goal(f"{data.name}: lowest codebook perplexity of {size}", min(used), above=PERPLEXITY_GOAL * size)
    section.goals += [*_rate_goals(data, systems, found), lowest]


def _notes(name: str, systems: Systems, used: Sequence[float], size: int) -> list[str]:
    books = " ".join(f"{value:.0f}" for value in used)
    notes = [f"{name}: perplexity of the codebooks (of {size}), level by level: {books}."]
    lags = {n: s["lag"] for n, s in systems.items() if s["lag"]}
    if lags:
        text = ", ".join(f"{n} {lag}" for n, lag in lags.items())
        notes.append(f"{name}: samples of lag that were taken out before comparing: {text}.")
    return notes


def _rate_goals(data: Held, systems: Systems, found: Mapping[str, Mapping[str, Estimate]]) -> list[Goal]:
    """Against Lyra V2's figures and our own goals, at the rates at which there are any."""
    goals = []
    for name, system in systems.items():
        rate = round(system["rate"] / 1000, 2)
        for whose, table in (("Lyra V2", LYRA), ("goal", GOALS)):
            limits = table[data.kind].get(int(rate)) if "levels" in system and rate == int(rate) else None
            for key, limit in zip(("pesq_wb", "stoi"), limits or (), strict=False):
                if limit is not None and key in found[name]:
                    what = f"{data.name}: {TITLES[key]} at {rate:g} kbit/s ({whose})"
                    goals.append(Goal(what, found[name][key].mean, above=limit))
    return goals


def figures(codec: SoundStream, corpus: Corpus, levels: Sequence[int] = (4, 8, 12), clips: int = 20) -> dict[str, Any]:
    """Log-mel distance by number of levels, and codebook perplexity, of ``clips`` crops: what needs no extra library.

    Raises:
        InputError: the corpus has no usable sound.
    """
    sounds, wanted = excerpts(corpus, clips, 8.0, 0), levels_of(codec, levels)
    systems = _codec_systems(codec, sounds, wanted, ["log_mel"])
    means = {system["levels"]: float(np.mean(system["values"]["log_mel"])) for system in systems.values()}
    return {
        "log_mel_distance": {n: round(value, 4) for n, value in means.items()},
        "perplexity": [round(value) for value in perplexity(codec, corpus)],
        "nats_possible": round(math.log(codec.config.cardinality), 2),
    }
