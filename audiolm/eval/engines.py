"""What a faster engine costs in exactness: logits, likelihood, codes, tokens and sound beside the reference's.

Stages are teacher-forced on held-out tokens, through the very graphs that run live; codec and tokenizer hear held-out
sound tick by tick. So all engines answer the same questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiolm.compute.base import Compute
from audiolm.compute.choose import make_compute
from audiolm.engine import Engine
from audiolm.eval.likelihood import crop_seconds
from audiolm.eval.report import Cell, Goal, Progress, Section, quiet
from audiolm.eval.stats import estimate
from audiolm.parts import STAGES, Parts
from audiolm.stage import StageSpec, skew
from audiolm.train.crops import StageData
from audiolm.train.losses import mel_distance
from audiolm.train.shards import Array
from audiolm.train.tokens import Tokens

REFERENCE = "torch"
EXACT = ("onnx",)  # float32: bound to the logits of the reference
LOGITS, ARGMAX, LIKELIHOOD = 1e-4, 99.9, 1.0  # largest difference; % of argmaxes; % of nats a token
Taught = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Crop:
    """Rows of one stage: ``tokens [T, levels]`` and ``cond [T, cond_levels]``, and from which row on they count."""

    tokens: np.ndarray[Any, Any]
    cond: np.ndarray[Any, Any] | None
    first: int


def crops_of(parts: Parts, name: str, held: Tokens, count: int) -> list[Crop]:
    """Held-out crops of twice a stage's window, as the rows that are stepped live."""
    spec = parts.stages[name].spec
    data = StageData(held, spec, parts.codec.config.coarse_levels, crop_seconds(spec, held), 1)
    made = []
    for _ in range(count):
        tokens, cond = data.batch(1)
        rows = skew(tokens, spec.start_token) if spec.pattern == "delay" else tokens
        made.append(Crop(rows[0].numpy(), None if cond is None else cond[0].numpy(), spec.span))
    return made


def compare_stage(spec: StageSpec, crops: Sequence[Crop], wanted: Sequence[Taught], got: Sequence[Taught]) -> Any:
    """Largest difference of logits, share of equal argmaxes in %, and nats a token of both, per crop."""
    same = [100 * float((a.argmax(-1) == b.argmax(-1)).mean()) for a, b in zip(wanted, got, strict=True)]
    return {
        "logits": max(float(np.abs(a - b).max()) for a, b in zip(wanted, got, strict=True)),
        "argmax": float(np.mean(same)),
        "nats": [nats(spec, crop, logits) for crop, logits in zip(crops, got, strict=True)],
        "reference": [nats(spec, crop, logits) for crop, logits in zip(crops, wanted, strict=True)],
    }


def nats(spec: StageSpec, crop: Crop, logits: Taught) -> float:
    """Mean negative log-likelihood of a crop's tokens."""
    tokens, rows = crop.tokens[crop.first :], logits[crop.first :].astype(np.float64)
    known = tokens < spec.cardinality
    total = np.logaddexp.reduce(rows, -1)
    chosen = np.take_along_axis(rows, np.where(known, tokens, 0)[..., None], -1)[..., 0]
    return float((total - chosen)[known].mean())


def compare_ears(parts: Parts, compute: Compute, sounds: Sequence[Array]) -> dict[str, float]:
    """Equal codes and tokens in %, and the log-mel distance of the decoder's sound to the reference's, tick by tick."""
    import torch

    same = {"codes": list[float](), "tokens": list[float](), "mel": list[float]()}
    for sound in sounds:
        reference, ours = (Engine(parts, compute=each) for each in (None, compute))
        slots = [engine.open() for engine in (reference, ours)]
        made: list[list[Array]] = [[], []]
        for tick in sound.reshape(-1, parts.tick):
            codes = [e.encode({s: tick})[s] for e, s in zip((reference, ours), slots, strict=True)]
            tokens = [e.listen({s: tick})[s] for e, s in zip((reference, ours), slots, strict=True)]
            same["codes"].append(float((codes[0] == codes[1]).mean()))
            same["tokens"].append(float(tokens[0] == tokens[1]))
            for engine, slot, out in zip((reference, ours), slots, made, strict=True):
                out.append(engine.decode({slot: codes[0]})[slot])
        real, got = (torch.from_numpy(np.concatenate(out))[None] for out in made)
        same["mel"].append(float(mel_distance(real, got)))
    share = {key: 100 * float(np.mean(same[key])) for key in ("codes", "tokens")}
    return {**share, "mel": float(np.mean(same["mel"]))}


def engines(
    parts: Parts,
    sources: Mapping[str, tuple[Tokens, Sequence[Array]]],
    names: Sequence[str],
    *,
    crops: int = 4,
    progress: Progress = quiet,
) -> Section:
    """The section ``engines`` of the report.

    Args:
        parts: the model.
        sources: for each corpus its held-out tokens and a few sounds of whole ticks.
        names: of the engines beside the reference.
        crops: of twice its window, for each stage and corpus.
        progress: told what is being done.
    """
    section = Section("engines", "Engines beside the reference")
    computes = {name: make_compute(name, parts) for name in names}
    rows, ears = list[list[Cell]](), list[list[Cell]]()
    for label, (held, sounds) in sources.items():
        for stage in STAGES:
            progress(f"{label}: {stage} stage")
            cut = crops_of(parts, stage, held, crops)
            rows += _stage_rows(section, label, stage, crops=cut, parts=parts, computes=computes)
        for name, compute in computes.items():
            progress(f"{label}: codec and tokenizer under {name}")
            found = compare_ears(parts, compute, sounds)
            section.figures.setdefault(label, {}).setdefault(name, {})["ears"] = found
            ears.append([label, name, found["codes"], found["tokens"], found["mel"]])
            section.goals.append(Goal(f"{label}, {name}: equal codes, %", found["codes"], above=ARGMAX))
    columns = ["corpus", "stage", "engine", "largest difference of a logit", "equal argmaxes, %", "nats more, %"]
    section.table("Teacher-forced, through the graphs that run live", columns, rows)
    columns = ["corpus", "engine", "equal codes, %", "equal semantic tokens, %", "log-mel distance of decoded sound"]
    section.table("Codec and tokenizer, tick by tick", columns, ears)
    return section


def _stage_rows(
    section: Section, label: str, stage: str, *, crops: list[Crop], parts: Parts, computes: Mapping[str, Compute]
) -> list[list[Cell]]:
    spec, rows = parts.stages[stage].spec, list[list[Cell]]()
    reference = make_compute(REFERENCE, parts)
    wanted = [reference.teach(stage, crop.tokens, crop.cond) for crop in crops]
    for name, compute in computes.items():
        found = compare_stage(spec, crops, wanted, [compute.teach(stage, crop.tokens, crop.cond) for crop in crops])
        more = estimate(100 * (np.array(found["nats"]) / np.array(found["reference"]) - 1))
        section.figures.setdefault(label, {}).setdefault(name, {})[stage] = {**found, "more": more}
        rows.append([label, stage, name, f"{found['logits']:.2g}", f"{found['argmax']:.2f}", more])
        about = f"{label}, {name}, {stage}"
        if name in EXACT:
            section.goals.append(
                Goal(f"{about}: largest difference of a logit, in 1e-4", found["logits"] / LOGITS, below=1)
            )
            section.goals.append(Goal(f"{about}: equal argmaxes, %", found["argmax"], above=ARGMAX))
        else:
            section.goals.append(Goal(f"{about}: nats a token, % more", more.mean, below=LIKELIHOOD))
    return rows
