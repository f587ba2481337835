"""The model card of a bundle, written from what the runs left behind: nothing in it is typed by hand.

Data, sizes, runs, curves, figures and limits come from the records and logs of the work folder; the licences are the
text that was given, and a card says so when none was.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from audiolm.bundle import weights_of
from audiolm.parts import STAGES, Parts
from audiolm.train import curves

RUNS = ("codec", "encoder", *STAGES)
CURVES, SWEEP = "curves.png", "sweep.png"
LEGEND = (
    "Within and across speakers: phone ABX error; chroma, onsets, ahead (of the tick after): share that the tokens "
    "explain on held-out sound; gain: nats of a bigram below the unigram"
)
PACKAGE = "audiolm-streamer"


@dataclass(frozen=True)
class Runs:
    """What is known of how a bundle was made.

    Attributes:
        parts: the bundle itself, its weights rounded as they are stored.
        about: one line on the preset.
        command: that makes it again.
        licences: text on the data's licences and attributions; may be empty.
        dtypes: how each part is stored.
        prepare: the report of the step prepare.
        ears: figures of the step of that name: layer, clusters, the sweep's table.
        measure: ``likelihoods`` and ``reconstruction``.
        crops: seconds of the crops that each stage was trained with.
        seconds: that each step took.
        logs: rows of the log of each training run.
    """

    parts: Parts
    about: str = ""
    command: str = ""
    licences: str = ""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    prepare: Mapping[str, Any] = field(default_factory=dict)
    ears: Mapping[str, Any] = field(default_factory=dict)
    measure: Mapping[str, Any] = field(default_factory=dict)
    crops: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    logs: Mapping[str, Sequence[curves.Row]] = field(default_factory=dict)


def write_card(runs: Runs, folder: Path) -> None:
    """Write ``folder/CARD.md``, and the picture of the curves where matplotlib is installed.

    A picture of the sweep that lies in ``folder`` is shown.

    Raises:
        OSError: there is no room.
    """
    pictures = {"Layer and clusters": SWEEP} if (folder / SWEEP).is_file() else {}
    if curves.picture(runs.logs, folder / CURVES):
        pictures["Training"] = CURVES
    (folder / "CARD.md").write_text(card(runs, pictures), encoding="utf8")


def card(runs: Runs, pictures: Mapping[str, str] | None = None) -> str:
    """The text of the card; ``pictures`` are files beside it, by the title of their section."""
    sections: dict[str, Callable[[Runs], list[str]]] = {
        "What is inside": _inside,
        "Data": _data,
        "Licences and attributions": _licences,
        "Training": _training,
        "Layer and clusters": _sweep,
        "Measured on held-out sound": _measured,
        "Known limits": _limits,
        "How it was made": _made,
    }
    lines = [f"# {runs.parts.name}", "", runs.about or "A bundle of AudioLM.", ""]
    for title, write in sections.items():
        body = write(runs)
        if body:
            lines += [f"## {title}", "", *body, ""]
        if title in (pictures or {}):
            lines += [f"![{title}]({(pictures or {})[title]})", ""]
    return "\n".join(lines).rstrip() + "\n"


def _rows(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *cells)]


def _inside(runs: Runs) -> list[str]:
    parts = runs.parts
    codec, ears = parts.codec.config, parts.tokenizer.config
    kbits = codec.frame_rate * codec.levels * (codec.cardinality - 1).bit_length() / 1000
    texts = {
        "codec": f"SoundStream ({codec.kind}), {codec.levels} levels of {codec.cardinality}, "
        f"{codec.frame_rate:g} Hz, {kbits:g} kbit/s",
        "tokenizer": f"causal conformer of width {ears.width}, {ears.layer} of {ears.layers} trained layers, "
        f"look-ahead {40 * ears.lookahead} ms, {ears.clusters} clusters, 25 Hz",
    }
    for name in STAGES:
        spec = parts.stages[name].spec
        size = f"{spec.layers} layer{'s' * (spec.layers > 1)} of width {spec.width}, {spec.heads} heads"
        texts[name] = f"{size}, window {spec.window / spec.rate:g} s, pattern {spec.pattern}"
        texts[name] += f", L = {spec.ahead}" if spec.ahead else ""
    modules = {"codec": parts.codec, "tokenizer": parts.tokenizer, **parts.stages}
    counts = {name: sum(map(torch.numel, weights_of(module).values())) for name, module in modules.items()}
    rows = [[name, text, f"{counts[name] / 1e6:.2f} M", runs.dtypes.get(name, "fp16")] for name, text in texts.items()]
    sampling = ", ".join(f"{name} {parts.sampling[name].temperature:g}" for name in STAGES)
    return [*_rows(["part", "sizes", "parameters", "stored"], rows), "", f"Default temperatures: {sampling}."]


def _data(runs: Runs) -> list[str]:
    """The summary of the step prepare, a line a point."""
    return [f"- {line}" for line in str(runs.prepare.get("summary", "")).splitlines()]


def _hours(runs: Runs, split: str) -> float | None:
    hours = runs.prepare.get("splits", {}).get(split, {}).get("hours")
    return None if hours is None else float(hours)


def _licences(runs: Runs) -> list[str]:
    text = runs.licences.strip()
    if text:
        return ["As given by whoever trained this bundle:", "", text]
    none = "None were given (`--licences FILE`, or a file LICENCE beside the data)."
    return [f"{none} Find out what the data's licences ask for before you pass these weights on."]


def _training(runs: Runs) -> list[str]:
    lines, rows = [], []
    for name in RUNS:
        log = runs.logs.get(name, [])
        if log:
            known = curves.last(log)
            rows.append([name, f"{known['minutes']:.1f}", f"{known['step']:.0f}", f"{known.get(curves.SPEED, 0):.3g}"])
            lines += ["", f"{name}:", "", *curves.table(log)]
    others = {name: seconds for name, seconds in runs.seconds.items() if name not in RUNS}
    said = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in others.items())
    tail = ["", f"Minutes of the other steps: {said}."] if said else []
    return [*_rows(["run", "minutes", "steps", "steps a second"], rows), *tail, *lines] if rows else tail[1:]


def _sweep(runs: Runs) -> list[str]:
    ears = runs.ears
    if not ears:
        return []
    table = ears.get("sweep") or []
    head = [key for key in dict.fromkeys(key for row in table for key in row) if any(row.get(key) for row in table)]
    chosen = (ears.get("layer"), ears.get("clusters"))
    rows = []
    for row in table:
        mark = "**" if (row.get("layer"), row.get("clusters")) == chosen else ""
        rows.append([f"{mark}{_number(row.get(key))}{mark}" for key in head])
    lines = [*_rows([name.replace("_", " ") for name in head], rows), ""] if table else []
    return [*lines, f"Layer {chosen[0]}, {chosen[1]} clusters{f', the row in bold. {LEGEND}' if table else ''}."]


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _measured(runs: Runs) -> list[str]:
    lines = []
    likelihoods, sound = runs.measure.get("likelihoods") or {}, runs.measure.get("reconstruction") or {}
    if likelihoods:
        columns = ("nll", "unigram", "unconditioned")
        rows = [[name, *(row.get(key) for key in columns)] for name, row in likelihoods.items()]
        lines += [*_rows(["stage", "nats a token", "unigram", "without conditioning"], rows), ""]
    if sound:
        distances = sound["log_mel_distance"]
        lines += [*_rows(["levels", "log-mel distance"], [[n, d] for n, d in distances.items()]), ""]
        used = " ".join(str(value) for value in sound["perplexity"])
        lines += [f"Codebook perplexity, level by level, of {runs.parts.codec.config.cardinality}: {used}.", ""]
    return lines[:-1]


def _limits(runs: Runs) -> list[str]:
    sentences = [*_limits_of_data(runs), *_limits_of_sound(runs), *_limits_of_stages(runs)]
    sentences.append("Mono at 16 kHz: nothing above 8 kHz is heard or made.")
    return [f"- {sentence}" for sentence in sentences]


def _limits_of_data(runs: Runs) -> list[str]:
    found = []
    heard, held = _hours(runs, "train"), _hours(runs, "dev")
    if heard is not None and heard < 100:
        found.append(f"It has heard {heard:.2f} h of sound; expect little beyond its voices, pieces and rooms.")
    if held is not None and held < 0.5:
        found.append(f"The held-out figures rest on {60 * held:.1f} minutes of sound.")
    return found


def _limits_of_sound(runs: Runs) -> list[str]:
    sound = runs.measure.get("reconstruction") or {}
    most = runs.parts.codec.config.cardinality
    poor = [str(q + 1) for q, value in enumerate(sound.get("perplexity", [])) if value < 0.6 * most]
    if not poor:
        return []
    return [f"Codebooks of level {', '.join(poor)} use less than 60 % of their codes (perplexity)."]


def _limits_of_stages(runs: Runs) -> list[str]:
    found = []
    for name, row in (runs.measure.get("likelihoods") or {}).items():
        if row["nll"] >= row["unigram"] - 0.05:
            found.append(f"The {name} stage is hardly better than a unigram: its continuations are close to noise.")
        if "unconditioned" in row and row["unconditioned"] - row["nll"] < 0.05:
            found.append(f"The {name} stage gains less than 0.05 nats from its conditioning: it hardly listens to it.")
        log = [item["dev_nll"] for item in runs.logs.get(name, []) if "dev_nll" in item]
        if log and log[-1] > min(log) + 0.05:
            found.append(f"The {name} stage over-fitted before its run ended; the best weights were kept.")
        spec = runs.parts.stages[name].spec
        crop, window = runs.crops.get(name), spec.window / spec.rate
        if crop is not None and crop < 2 * window:
            text = f"The {name} stage saw crops of {crop:.1f} s, less than twice its window of {window:g} s"
            found.append(text + ": what it does when its window slides is not trained.")
    return found


def _made(runs: Runs) -> list[str]:
    try:
        release = version(PACKAGE)
    except PackageNotFoundError:
        release = "not installed"
    said = f"{PACKAGE} {release}, torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}."
    return [*(["```bash", runs.command, "```", ""] if runs.command else []), said]
