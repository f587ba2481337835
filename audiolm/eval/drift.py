"""Does free running stay itself: minutes of generation, minute by minute, beside minutes of data.

A model that collapses falls silent, holds one token, goes round in a loop, or wanders into noise. Each shows in a
figure: silence, changes of token, the loop, entropy. Semantic tokens are taken from the generated sound again, so that
model and data are heard by the same ears.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from audiolm.errors import InputError
from audiolm.eval.clips import QUIET_DB, Held, level_db, prompts
from audiolm.eval.report import Cell, Goal, Progress, Section, quiet, within
from audiolm.eval.trend import trend
from audiolm.model import AudioLM, ticks_of
from audiolm.parts import Parts
from audiolm.train.data import RATE, TICK, Corpus
from audiolm.train.shards import Array
from audiolm.train.tokens import encode_long, streams

GRAM = 8  # frames of an n-gram, 160 ms
SHORTEST_LAG, LONGEST_LAG = 5, 250  # ticks: loops of 0.2 to 10 s
FEWEST_CHANGES = 0.02  # of the ticks; fewer are a token that is held, which is a loop too
STEADY = 0.15
MINUTE = 60.0
STEPS, MOST_ROWS = (1, 5, 10, 30, 60), 13  # minutes between the rows of a long run's table


@dataclass(frozen=True)
class Minute:
    """Figures of a minute.

    Attributes:
        semantic_entropy: of the semantic tokens of the minute, nats.
        acoustic_entropy: of the acoustic tokens of the first level, nats.
        repeated: share of the n-grams of the first level that came before in the minute.
        loop: share of the changes of semantic token that also came one lag before, at the worst lag of 0.2 to 10 s.
        silent: share of ticks below -50 dBFS.
        level: dBFS.
    """

    semantic_entropy: float
    acoustic_entropy: float
    repeated: float
    loop: float
    silent: float
    level: float


TITLES = {
    "semantic_entropy": "semantic entropy (nats)",
    "acoustic_entropy": "acoustic entropy (nats)",
    "repeated": "repeated n-grams",
    "loop": "loop",
    "silent": "silent share",
    "level": "level (dBFS)",
}


def entropy(tokens: Array) -> float:
    """Entropy of the tokens' frequencies in nats."""
    _, counts = np.unique(tokens, return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log(p)).sum()) + 0.0


def repeated_share(tokens: Array, size: int = GRAM) -> float:
    """Share of n-grams that are not the first of their kind; 0 where there is no n-gram."""
    if len(tokens) < size:
        return 0.0
    grams = np.lib.stride_tricks.sliding_window_view(tokens, size)
    return 1 - len(np.unique(grams, axis=0)) / len(grams)


def loop_share(tokens: Array, shortest: int = SHORTEST_LAG, longest: int = LONGEST_LAG) -> float:
    """Share of the changes of token that also came a lag earlier, at the worst lag; 1 is a perfect loop.

    Held tokens do not count, as held notes and pauses are no loops; a stream that hardly changes counts as one.
    """
    before, after = tokens[:-1], tokens[1:]
    changes = before != after
    if changes.mean() < FEWEST_CHANGES:
        return 1.0
    worst = 0.0
    for lag in range(shortest, min(longest, len(after) // 2) + 1):
        here = changes[lag:]
        same = here & (after[lag:] == after[:-lag]) & (before[lag:] == before[:-lag])
        worst = max(worst, float(same.sum()) / max(int(here.sum()), 1))
    return worst


def look(audio: Array, semantic: Array, acoustic: Array) -> Minute:
    """The figures of a piece: sound of whole ticks, semantic tokens, and first-level acoustic tokens."""
    ticks = audio.reshape(-1, TICK)
    return Minute(
        entropy(semantic),
        entropy(acoustic),
        repeated_share(acoustic),
        loop_share(semantic),
        float(np.mean([level_db(tick) < QUIET_DB for tick in ticks])),
        level_db(audio),
    )


@torch.inference_mode()
def _semantic(parts: Parts, audio: Array) -> Array:
    return np.asarray(parts.tokenizer(torch.from_numpy(audio)[None])[0])


def data_minutes(parts: Parts, corpus: Corpus, count: int, seconds: float = MINUTE, seed: int = 0) -> list[Minute]:
    """Up to ``count`` minutes of data, speakers' clips joined by pauses as in training.

    Raises:
        InputError: the corpus has less than one.
    """
    sounds, size = streams(corpus), int(seconds * 25) * TICK
    order = np.random.default_rng(seed).permutation(len(sounds))
    pieces, have = list[Array](), 0
    for i in order:
        pieces.append(sounds[i])
        have += len(sounds[i])
        if have >= count * size:
            break
    whole = np.concatenate(pieces)
    if len(whole) < size:
        raise InputError(f"the corpus has {len(whole) / RATE:.1f} s; drift is compared by pieces of {seconds:g} s")
    found = []
    for at in range(0, min(len(whole) // size, count) * size, size):
        audio = np.ascontiguousarray(whole[at : at + size])
        with torch.inference_mode():
            codes = encode_long(parts.codec, torch.from_numpy(audio)[None])[0, :, 0].numpy()
        found.append(look(audio, _semantic(parts, audio), codes))
    return found


def free_minutes(
    model: AudioLM,
    prompt: Array | None,
    count: int,
    *,
    seconds: float = MINUTE,
    seed: int = 0,
    progress: Progress = quiet,
) -> list[Minute]:
    """Let the model run from a prompt, or from nothing (mode ``dream``); the figures of each minute."""
    found, per = [], int(seconds * 25)
    with model.session(mode="dream" if prompt is None else "continue", seed=seed) as session:
        for tick in () if prompt is None else ticks_of(prompt):
            session.listen(tick)
        for i in range(count):
            progress(f"minute {i + 1} of {count}")
            made = [session.generate() for _ in range(per)]
            audio = np.concatenate([tick.audio for tick in made])
            codes = np.concatenate([tick.codes[:, 0] for tick in made])
            found.append(look(audio, _semantic(model.parts, audio), codes))
    return found


def drift(
    model: AudioLM,
    held: Sequence[Held],
    *,
    minutes: int = 5,
    heard: float = 6.0,
    seed: int = 0,
    dream: bool = False,
    seconds: float = MINUTE,
    progress: Progress = quiet,
) -> Section:
    """The section ``drift`` of the report: a run a corpus, from one of its prompts or, with ``dream``, from nothing.

    Raises:
        InputError: a corpus has less than a minute, or no prompt.
    """
    figures = {}
    for data in held:
        progress(f"{data.name}: minutes of data")
        real = data_minutes(model.parts, data.corpus, max(2 * minutes, 8), seconds, seed)
        prompt = None if dream else prompts(data, 1, heard, heard, seed)[0].sound
        told = within(progress, data.name)
        made = free_minutes(model, prompt, minutes, seconds=seconds, seed=seed, progress=told)
        figures[data.name] = {"made": _columns(made), "data": _columns(real)}
    return drift_section(figures, seconds)


def drift_section(figures: Mapping[str, Mapping[str, Any]], seconds: float = MINUTE) -> Section:
    """The section of figures that were taken: ``made`` and ``data``, by corpus, a list a measure with a value a minute.

    Raises:
        InputError: they are no such figures.
    """
    section = Section("drift", "Free running")
    for name, both in figures.items():
        try:
            made, real = (_minutes(both[key]) for key in ("made", "data"))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the figures of {name} are not those of free running ({error!r}); measure again"
            ) from error
        _write(section, name, made, real, seconds)
    section.notes.append(
        "Loop: share of the changes of semantic token that also came a lag before, at the worst lag of 0.2 to 10 s. "
        "Repeated: share of 160 ms of first-level acoustic tokens that came before in the minute."
    )
    if any("trend" in found for found in section.figures.values()):
        section.notes.append(
            "Trend: change an hour by least squares; an interval on both sides of 0 shows no drift. Every minute is in "
            "the JSON."
        )
    return section


def told_minutes(count: int) -> list[int]:
    """The minutes, from 1, that a table of ``count`` has: all of a few, else the first, every 5th or 10th, the last."""
    step = next((step for step in STEPS if count / step < MOST_ROWS), STEPS[-1])
    return sorted({1, count} | set(range(step, count + 1, step)))


def _write(section: Section, name: str, made: Sequence[Minute], real: Sequence[Minute], seconds: float) -> None:
    rows: list[list[Cell]] = [[str(i), *asdict(made[i - 1]).values()] for i in told_minutes(len(made))]
    columns = _columns(made)
    trends = {key: found for key in TITLES if (found := trend(columns[key], seconds / 60)) is not None}
    if trends:
        rows.append(["run, mean", *(float(np.mean(columns[key])) for key in TITLES)])
        rows.append(["trend an hour", *(trends.get(key) for key in TITLES)])
    for label, edge in (("data, least", np.min), ("data, mean", np.mean), ("data, most", np.max)):
        rows.append([label, *(float(edge([getattr(minute, key) for minute in real])) for key in TITLES)])
    section.table(f"{name}, {len(real)} minutes of data", ["minute", *TITLES.values()], rows)
    section.figures[name] = {"made": columns, "data": _columns(real), **({"trend": trends} if trends else {})}
    section.goals += goals(name, made, real)


def _columns(minutes: Sequence[Minute]) -> dict[str, list[float]]:
    return {key: [getattr(minute, key) for minute in minutes] for key in TITLES}


def _minutes(columns: Mapping[str, Sequence[float]]) -> list[Minute]:
    """As they were; ValueError of columns that differ in length or hold nothing."""
    made = [Minute(*map(float, row)) for row in zip(*(columns[key] for key in TITLES), strict=True)]
    if not made:
        raise ValueError("no minute")
    return made


def goals(name: str, made: Sequence[Minute], real: Sequence[Minute]) -> list[Goal]:
    """No loop and no silence beyond the data's worst minute, entropy steady from the first minute to the last.

    The acoustic tokens of the run are, on the whole, to be as various as those of the data's least various minute: a
    murmur neither loops nor is silent, and may begin and end alike.
    """
    most = {key: max(getattr(minute, key) for minute in real) for key in ("loop", "silent")}
    first, last = made[0].semantic_entropy, made[-1].semantic_entropy
    steady = last / first if first else float("nan")
    silent = float(np.mean([minute.silent for minute in made]))
    various = float(np.mean([minute.acoustic_entropy for minute in made]))
    least = min(minute.acoustic_entropy for minute in real)
    return [
        Goal(f"{name}: loop in the worst minute", max(minute.loop for minute in made), below=most["loop"] + 0.05),
        Goal(f"{name}: silent share over the run", silent, below=most["silent"] + 0.01),
        Goal(f"{name}: semantic entropy, last minute over first", steady, above=1 - STEADY, below=1 + STEADY),
        Goal(f"{name}: acoustic entropy over the run (nats)", various, above=least),
    ]
