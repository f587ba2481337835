"""What the stages know: held-out nats a token, beside a unigram and beside themselves without conditioning.

Crops are of twice a stage's window, with the masks and offsets of inference, so that the sliding mask is exercised.
All three figures are of the same crops and the intervals are over crops.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiolm.errors import InputError
from audiolm.eval.report import Cell, Goal, Progress, Section, quiet
from audiolm.eval.stats import Estimate, estimate, gain
from audiolm.parts import STAGES, Parts
from audiolm.stage import StageSpec
from audiolm.train.data import RATE, TICK, Corpus
from audiolm.train.stages import StageData, drop_conditioning, stage_loss
from audiolm.train.tokens import Tokens, encode_long, streams

CROPS = 24
SHORTEST = 2  # seconds; a stream of less says nothing


def unigram(tokens: Tensor, held: Tensor, cardinality: int) -> Tensor:
    """Held-out cross-entropy in nats of the add-one unigram of each level: ``[N, levels] -> [levels]``."""
    return _unigram_rows(tokens, held, cardinality).mean(0)


def _unigram_rows(tokens: Tensor, held: Tensor, cardinality: int) -> Tensor:
    rows = []
    for q in range(tokens.shape[1]):
        counts = torch.bincount(tokens[:, q].long(), minlength=cardinality).float() + 1
        rows.append(-(counts / counts.sum()).log()[held[:, q].long()])
    return torch.stack(rows, 1)


def side(tokens: Tokens, name: str, split: int) -> Tensor:
    """The tokens ``[N, levels]`` that a stage predicts; ``split`` is the number of coarse levels."""
    if name == "semantic":
        return tokens.semantic[:, None]
    return tokens.acoustic[:, :split] if name == "coarse" else tokens.acoustic[:, split:]


@torch.inference_mode()
def held_tokens(parts: Parts, corpus: Corpus, minutes: float) -> Tokens:
    """Tokens of up to ``minutes`` of a corpus, its speakers' clips joined as in training, nothing written.

    Raises:
        InputError: no stream has two seconds.
    """
    sounds = streams(corpus)
    order = np.random.default_rng(0).permutation(len(sounds))
    acoustic, semantic, rows, at = list[Tensor](), list[Tensor](), list[tuple[int, int]](), 0
    for i in order:
        sound = sounds[i][: len(sounds[i]) // TICK * TICK]
        if len(sound) < SHORTEST * RATE:
            continue
        audio = torch.from_numpy(np.ascontiguousarray(sound))[None]
        words = parts.tokenizer(audio)[0]
        acoustic.append(encode_long(parts.codec, audio)[0, : 2 * len(words)])
        semantic.append(words)
        rows.append((at, len(words)))
        at += len(words)
        if at >= minutes * 60 * 25:
            break
    if not rows:
        raise InputError(f"no clip or joined clips of {SHORTEST} s in the corpus; likelihoods need longer sound")
    return Tokens(torch.cat(acoustic), torch.cat(semantic), torch.tensor(rows))


def crop_seconds(spec: StageSpec, tokens: Tokens, wanted: float | None = None) -> float:
    """Twice the stage's window (or ``wanted``), or what the longest stream has."""
    longest = int(tokens.index[:, 1].max()) - spec.ahead
    ticks = round((2 * spec.window / spec.rate if wanted is None else wanted) * 25)
    return max(1, min(ticks, longest)) / 25


@torch.no_grad()
def stage_rows(
    parts: Parts, name: str, dev: Tokens, train: Tokens | None, *, crops: int = CROPS, seconds: float | None = None
) -> dict[str, Tensor]:
    """Nats a token of crops by level, ``[crops, levels]``: ``nll``, ``unigram`` and, if conditioned, ``unconditioned``.

    Without ``train`` the unigram is fitted to the held-out tokens themselves, which flatters it.
    """
    stage, split = parts.stages[name], parts.codec.config.coarse_levels
    spec = stage.spec
    data = StageData(dev, spec, split, crop_seconds(spec, dev, seconds), 1)
    known = side(train or dev, name, split)
    kinds: dict[str, list[Tensor]] = {key: [] for key in ("nll", "unigram", "unconditioned")}
    for _ in range(crops):
        tokens, cond = data.batch(1)
        kinds["nll"].append(stage_loss(stage, tokens, cond, 0))
        kinds["unigram"].append(_unigram_rows(known, tokens[0], spec.cardinality).mean(0))
        if cond is not None:
            bare = drop_conditioning(cond, spec, 1.0, torch.Generator())
            kinds["unconditioned"].append(stage_loss(stage, tokens, bare, 0))
    return {key: torch.stack(rows) for key, rows in kinds.items() if rows}


def repeat_nats(tokens: Tensor, held: Tensor, cardinality: int) -> float:
    """Nats a token of a bigram that knows only repetition: stay with the last token, or draw from the unigram.

    Semantic tokens often repeat; this says how much of a low likelihood is that alone. Both are ``[N]``.
    """
    stay = float((tokens[1:] == tokens[:-1]).float().mean().clamp(1e-4, 1 - 1e-4))
    counts = torch.bincount(tokens.long(), minlength=cardinality).float() + 1
    p = (counts / counts.sum())[held[1:].long()] * (1 - stay) + stay * (held[1:] == held[:-1])
    return float(-p.log().mean())


def likelihoods(parts: Parts, train: Tokens, dev: Tokens, crops: Mapping[str, float]) -> dict[str, Any]:
    """For each stage: held-out nats a token, the same without conditioning, and the unigram's, as plain numbers.

    ``crops`` are in seconds, by stage.
    """
    found = {name: stage_rows(parts, name, dev, train, seconds=crops[name]) for name in STAGES}
    return {name: {key: round(float(v.mean()), 4) for key, v in rows.items()} for name, rows in found.items()}


def likelihood(
    parts: Parts,
    sources: Sequence[tuple[str, Tokens]],
    train: Tokens | None = None,
    *,
    crops: int = CROPS,
    progress: Progress = quiet,
) -> Section:
    """The section ``likelihood`` of the report, for named held-out tokens.

    Raises:
        InputError: tokens are of another codec, or too short.
    """
    section = Section("likelihood", "Likelihood")
    for label, dev in sources:
        rows, levels, figures = list[list[Cell]](), list[list[Cell]](), dict[str, Any]()
        for name in STAGES:
            progress(f"{label}: {name} stage, {crops} crops")
            found = stage_rows(parts, name, dev, train, crops=crops)
            means = {key: estimate(value.mean(1).numpy()) for key, value in found.items()}
            against = {
                key: gain(found[key].mean(1).numpy(), found["nll"].mean(1).numpy()) for key in found if key != "nll"
            }
            figures[name] = {
                **means,
                "gain": against,
                "levels": {key: [float(v) for v in value.mean(0)] for key, value in found.items()},
            }
            rows.append(
                [name, means["nll"], means["unigram"], means.get("unconditioned"), against.get("unconditioned")]
            )
            levels.append(
                [name, *(" ".join(f"{v:.2f}" for v in found[k].mean(0)) if k in found else "" for k in LEVEL_KEYS)]
            )
            section.goals += _goals(label, name, against)
        repeat = repeat_nats((train or dev).semantic, dev.semantic, parts.tokenizer.config.clusters)
        figures["semantic"]["repeat"] = repeat
        section.figures[label] = figures
        columns = ["stage", "nats a token", "unigram", "without conditioning", "gain by conditioning"]
        section.table(f"{label}, {crops} crops of twice the window", columns, rows)
        section.table(f"{label}, by level", ["stage", *(TITLES[key] for key in LEVEL_KEYS)], levels)
        section.notes.append(
            f"{label}: a model that only knows how often semantic tokens repeat takes {repeat:.2f} nats a token."
        )
    if train is None:
        section.notes.append("The unigram was fitted to the held-out tokens themselves, in its favour.")
    return section


LEVEL_KEYS = ("nll", "unconditioned", "unigram")
TITLES = {"nll": "nats a token", "unconditioned": "without conditioning", "unigram": "unigram"}


def _goals(label: str, name: str, against: Mapping[str, Estimate]) -> list[Goal]:
    """Better than the unigram for certain, and coarse clearly better with its semantic tokens."""
    goals = [Goal(f"{label}: {name}, nats gained on the unigram (low end)", against["unigram"].low, above=0)]
    if "unconditioned" in against:
        low = against["unconditioned"].low
        goals.append(Goal(f"{label}: {name}, nats gained by conditioning (low end)", low, above=0))
    return goals
