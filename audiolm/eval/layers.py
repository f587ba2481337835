"""The layer sweep: the ABX error of every layer of the tokenizer's network, of its tokens, and of what stands beside.

Figure 2 of the AudioLM paper (arXiv 2209.03143) chose the layer of the semantic tokens by it. MFCC are the mark that
every learned feature has to pass; the codec's latents and tokens are the other kind of tokens that the model speaks.
Everything is measured on the same cases. Where the items come from is not known here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audiolm.errors import InputError
from audiolm.eval.abx import (
    Case,
    Item,
    Plan,
    Score,
    across_cases,
    averaged,
    case_errors,
    frames_of,
    some_cases,
    within_cases,
    without,
)
from audiolm.eval.by_fastabx import fast_errors
from audiolm.eval.items import Spoken
from audiolm.eval.mfcc import RATE as MFCC_RATE
from audiolm.eval.mfcc import mfcc
from audiolm.eval.plots import figure
from audiolm.eval.report import Cell, Goal, Progress, Section, quiet
from audiolm.parts import Parts
from audiolm.train.data import RATE

Array = np.ndarray[Any, Any]
Features = dict[str, Array]
GOAL = 0.75  # of MFCC's error
LONGEST = 120.0  # seconds of a sound that the network hears at once
MFCC, LATENTS, QUANTIZED, TOKENS = "MFCC", "codec latents", "cluster centres", "tokens"
NAMED = 3


@dataclass(frozen=True)
class Sweep:
    """What was measured on one set of items: errors within and across speakers by features, and what was left out.

    ``fast`` has fastabx's errors, 0 to 1, where it was asked too.
    """

    spoken: Spoken
    errors: dict[str, tuple[Score, Score]]
    rates: dict[str, float]
    faults: tuple[str, ...]
    fast: dict[str, dict[str, float]] = field(default_factory=dict)


def layer(number: int) -> str:
    """The features that are the output of a layer of the network, 0 before its first block."""
    return f"layer {number}"


def codes(levels: int) -> str:
    """The features that are the codec's first ``levels`` levels."""
    return "codec tokens, level 1" if levels == 1 else f"codec tokens, {levels} levels"


def layers_of(parts: Parts) -> int:
    """How many blocks the network has: a bundle leaves out those above the tokens' layer, and they are zeros."""
    full = [any(bool(p.any()) for p in block.parameters()) for block in parts.tokenizer.encoder.blocks]
    return full.index(False) if False in full else len(full)


def rates(parts: Parts) -> dict[str, float]:
    """Every kind of features, with its frames a second."""
    config, fast, slow = parts.codec.config, parts.codec.config.frame_rate, parts.tokenizer.rate_out
    levels = sorted({1, config.coarse_levels, config.levels})
    layers = range(layers_of(parts) + 1)
    return (
        {MFCC: MFCC_RATE, LATENTS: fast}
        | {codes(n): fast for n in levels}
        | {layer(n): slow for n in layers}
        | {QUANTIZED: slow, TOKENS: slow}
    )


@torch.inference_mode()
def features(parts: Parts, sound: Array) -> Features:
    """Features of a sound, float32 ``[samples]`` at 16 kHz: ``[frames, dim]`` by kind, of tokens int64 ``[frames]``.

    Every tick has its token, the last ones with silence as what they look ahead to. ``cluster centres`` are those of
    the tokens, in the space in which they were clustered; ``codec tokens`` are decoded to latents, of level 1 as they
    are.
    """
    tokenizer, codec, tick = parts.tokenizer, parts.codec, parts.tick
    ticks = max(1, math.ceil(len(sound) / tick))
    audio = torch.zeros(1, (ticks + parts.lookahead) * tick)
    audio[0, : len(sound)] = torch.from_numpy(sound)
    heard = audio[:, : ticks * tick]
    latents = codec.encoder.latent(heard)
    found = {MFCC: mfcc(heard[0]), LATENTS: latents[0]}
    books = codec.rvq.encode(latents)
    for levels in sorted({1, codec.config.coarse_levels, codec.config.levels}):
        found[codes(levels)] = books[0, :, 0] if levels == 1 else codec.rvq.decode(books[..., :levels])[0]
    outputs = tokenizer.encoder(tokenizer.stack(tokenizer.features(audio)))
    found |= {layer(n): output[0] for n, output in enumerate(outputs[: layers_of(parts) + 1])}
    found[TOKENS] = tokenizer.assign_clusters(outputs[tokenizer.config.layer])[0]
    found[QUANTIZED] = tokenizer.centroids[found[TOKENS]]
    return {name: value.numpy() for name, value in found.items()}


def sweep(
    parts: Parts,
    spoken: Spoken,
    *,
    cells: int | None = None,
    kinds: Sequence[str] = (),
    fastabx: bool = False,
    seed: int = 0,
    progress: Progress = quiet,
) -> Sweep:
    """ABX errors of every kind of features (or of ``kinds``), on up to ``cells`` cases within and across speakers.

    With ``fastabx`` that library counts beside ours, every case.

    Raises:
        InputError: no case can be made of the items, none of their sounds can be read, or fastabx is not there.
    """
    wanted = {name: rate for name, rate in rates(parts).items() if not kinds or name in kinds}
    sides = [some_cases(make(spoken.items, seed=seed), cells, seed) for make in (within_cases, across_cases)]
    used = sorted({i for side in sides for case in side for i in (*case.a, *case.b, *case.x)})
    used = list(range(len(spoken.items))) if fastabx else used
    frames, lost, faults = _frames(parts, spoken, used, wanted, progress)
    sides = [without(side, lost) for side in sides]
    empty = [name for name, side in zip(("within", "across"), sides, strict=True) if not side]
    if empty:
        raise InputError(
            f"{spoken.name}: no ABX case {' and none '.join(empty)} speakers, of {len(spoken.items)} items of "
            f"{spoken.speakers} speakers; give more items"
            + (f"; {'; '.join(faults)}" if faults else ", of speakers who say the same triphones more than once")
        )
    found = Sweep(spoken, {}, wanted, (*spoken.faults, *faults))
    plan = Plan.of([*sides[0], *sides[1]])
    for name in wanted:
        progress(f"{spoken.name}: ABX of {name}")
        heard = frames.pop(name)
        found.errors[name] = _scores(heard, plan, sides, seed)
        if fastabx:
            found.fast[name] = fast_errors(spoken.items, heard, seed=seed)
    return found


def _scores(frames: dict[int, Array], plan: Plan, sides: Sequence[Sequence[Case]], seed: int) -> tuple[Score, Score]:
    found, split = case_errors(frames, plan), len(sides[0])
    return averaged(sides[0], found[:split], seed), averaged(sides[1], found[split:], seed)


def _frames(
    parts: Parts, spoken: Spoken, used: Sequence[int], wanted: Mapping[str, float], progress: Progress
) -> tuple[dict[str, dict[int, Array]], set[int], list[str]]:
    """Frames of the used items by kind, items whose sound cannot be used, and why."""
    by_clip: dict[str, list[int]] = {}
    for i in used:
        by_clip.setdefault(spoken.items[i].clip, []).append(i)
    frames: dict[str, dict[int, Array]] = {name: {} for name in wanted}
    bad: dict[str, str] = {}
    for count, (clip, numbers) in enumerate(by_clip.items()):
        if count % 50 == 0:
            progress(f"{spoken.name}: features, sound {count + 1} of {len(by_clip)}")
        try:
            heard = features(parts, _sound(spoken, clip, [spoken.items[i] for i in numbers]))
        except InputError as error:
            bad[clip] = str(error)
            continue
        for name, rate in wanted.items():
            frames[name] |= {i: frames_of(spoken.items[i], heard[name], rate).copy() for i in numbers}
    for name, of in frames.items():
        if not name.startswith(MFCC) and of:
            _centre(of)
    lost = {i for clip in bad for i in by_clip[clip]}
    named = "; ".join(list(bad.values())[:NAMED])
    return frames, lost, [f"{len(bad)} of {len(by_clip)} sounds cannot be used ({named})"] if bad else []


def _sound(spoken: Spoken, clip: str, items: Sequence[Item]) -> Array:
    sound = spoken.sound(clip)
    seconds, last = len(sound) / RATE, max(item.start for item in items)
    if last >= seconds:
        raise InputError(f"{clip} has {seconds:.2f} s, but an item begins at {last:.2f} s")
    if seconds > LONGEST:
        raise InputError(f"{clip} has {seconds:.0f} s; sounds of up to {LONGEST:.0f} s are heard")
    return sound


def _centre(frames: dict[int, Array]) -> None:
    """Take out the mean of all frames, which says nothing and makes every angle small; tokens stay as they are."""
    if np.issubdtype(next(iter(frames.values())).dtype, np.floating):
        mean = np.concatenate(list(frames.values())).mean(0)
        frames.update({i: each - mean for i, each in frames.items()})


# -- the section --


def abx_section(parts: Parts, found: Sequence[Sweep], plot: Callable[[Mapping[str, Any]], str | None]) -> Section:
    """The section ``abx`` of the report; ``plot`` draws its figures and names the file, if it does."""
    section, chosen = Section("abx", "Phones (ABX)"), layer(parts.tokenizer.config.layer)
    for each in found:
        name, items = each.spoken.name, each.spoken.items
        rows: list[list[Cell]] = [
            [f"{kind} (of the tokens)" if kind == chosen else kind, f"{each.rates[kind]:g}", *(s.percent for s in pair)]
            for kind, pair in each.errors.items()
        ]
        title = f"{name}: ABX error in percent, chance is 50; {len(items)} triphones of {each.spoken.speakers} speakers"
        section.table(title, ["features", "frames a second", "within speakers", "across speakers"], rows)
        section.figures[name] = {
            "items": len(items),
            "speakers": each.spoken.speakers,
            "chosen": chosen,
            "errors": {k: {"within": a.percent, "across": b.percent} for k, (a, b) in each.errors.items()},
        }
        if each.fast:
            _beside(section, each)
        section.goals += _spoken_goals(name, each.errors) if each.spoken.made else _goals(name, each.errors, chosen)
        section.notes += _notes(each)
    has, trained = layers_of(parts), parts.tokenizer.config.layers
    if has < trained:
        section.notes.append(f"Of the {trained} blocks that were trained the bundle has {has}: the layers 0 to {has}.")
    drawn = plot(section.figures)
    section.plots += [drawn] if drawn else []
    return section


def _beside(section: Section, each: Sweep) -> None:
    """The errors by fastabx beside ours."""
    section.figures[each.spoken.name]["fastabx"] = each.fast
    rows: list[list[Cell]] = [
        [kind, *(x for at, side in enumerate(fast) for x in (each.errors[kind][at].percent.mean, 100 * fast[side]))]
        for kind, fast in each.fast.items()
    ]
    columns = ["features", "within, ours", "within, fastabx", "across, ours", "across, fastabx"]
    section.table(f"{each.spoken.name}: beside fastabx, in percent", columns, rows)


def _goals(name: str, errors: Mapping[str, tuple[Score, Score]], chosen: str) -> list[Goal]:
    """The chosen layer against MFCC and against the codec's latents."""
    goals = []
    for at, side in enumerate(("within", "across")):
        what, value = f"{name}: ABX error of {chosen} {side} speakers, in percent", errors[chosen][at].percent.mean
        goals += [
            Goal(f"{what}, against MFCC", value, below=GOAL * errors[MFCC][at].percent.mean),
            Goal(f"{what}, against codec latents", value, below=errors[LATENTS][at].percent.mean),
        ]
    return goals


def _spoken_goals(name: str, errors: Mapping[str, tuple[Score, Score]]) -> list[Goal]:
    """A synthesizer's voice repeats itself, so MFCC hardly err within a speaker; only chance is a mark here."""
    sides = zip(("within", "across"), errors[TOKENS], strict=True)
    return [
        Goal(f"{name}: ABX error of tokens {side} speakers (high end)", s.percent.high, below=50) for side, s in sides
    ]


def _notes(each: Sweep) -> list[str]:
    name, (within, across) = each.spoken.name, next(iter(each.errors.values()))
    cases = f"{within.cases} cases within and {across.cases} across speakers"
    pairs = f"{within.pairs} and {across.pairs} pairs of phones"
    return [f"{name}: {each.spoken.how} {cases}, over {pairs}.", *(f"{name}: {fault}." for fault in each.faults)]


def abx_plot(figures: Mapping[str, Any], path: Path) -> None:
    """The errors by layer, within and across speakers, a panel a set of items; lines for MFCC and the tokens.

    Raises:
        InputError: matplotlib is not there, or the file cannot be written.
    """
    with figure(path, 1, len(figures), (5.5 * len(figures), 3.6)) as axes:
        for axis, (name, found) in zip(axes[0], figures.items(), strict=True):
            errors = found["errors"]
            layers = [kind for kind in errors if kind.startswith("layer ")]
            for side, colour in (("within", "tab:blue"), ("across", "tab:orange")):
                values = [errors[kind][side] for kind in layers]
                places = range(len(layers))
                axis.fill_between(places, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.15)
                axis.plot(places, [v.mean for v in values], marker="o", color=colour, label=f"{side} speakers")
                axis.axhline(errors[MFCC][side].mean, color=colour, linestyle=":", linewidth=1)
                axis.axhline(errors[TOKENS][side].mean, color=colour, linestyle="--", linewidth=1)
            axis.axvline(layers.index(found["chosen"]), color="grey", linewidth=0.8)
            axis.set_xticks(list(range(len(layers))))
            axis.set_ylim(bottom=0)
            axis.set_title(f"{name}: ABX error, %", fontsize=9)
            axis.set_xlabel("layer (grey: of the tokens; dotted: MFCC; dashed: tokens)", fontsize=8)
            axis.legend(fontsize=7)
