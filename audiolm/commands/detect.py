"""The commands ``audiolm detect``, ``audiolm train detector`` and ``audiolm eval detect``: real or continued?

::

    audiolm detect sound.wav                               # by the shipped bundles' detectors
    audiolm train detector BUNDLE --data data/train=speech --out BUNDLE/detector.safetensors
    audiolm eval detect BUNDLE --data data/dev=speech
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiolm.commands.bench import (
    OUT,
    Bench,
    BundleName,
    Data,
    Heard,
    Out,
    Played,
    Prompts,
    Seconds,
    Seed,
    Threads,
    say,
)
from audiolm.errors import InputError

if TYPE_CHECKING:
    from audiolm.detector import Detector, Judged, Verdict
    from audiolm.eval.report import Section

NO_PROOF = "A detector knows its own bundle's continuations and no others. What it says is no proof."


def detect(
    file: Annotated[Path, typer.Argument(help="sound file of at least 1 s")],
    *,
    bundle: Annotated[
        list[str] | None, typer.Option("--bundle", help="whose detector; else all shipped; may be repeated")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="everything, by second, for programs")] = False,
    threads: Threads = 1,
) -> None:
    """Real or continued: what a bundle's detector, the watermark and the file's own words say of a sound."""
    import torch

    torch.set_num_threads(threads)
    found = examined(file, bundle or shipped_detectors())
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines_of(found)))


def shipped_detectors() -> list[str]:
    """The shipped bundles that have one.

    Raises:
        InputError: none has.
    """
    from audiolm.bundle import find, shipped
    from audiolm.detector import FILE

    names = [name for name in shipped() if (find(name) / FILE).is_file()]
    if not names:
        raise InputError("no shipped bundle has a detector; give --bundle, or make one with `audiolm train detector`")
    return names


def examined(file: Path, bundles: list[str]) -> dict[str, Any]:
    """What is known of a file, as plain data: ``file``, ``seconds``, ``mark``, ``watermark``, ``detectors``.

    Raises:
        InputError: it cannot be read or is shorter than 1 s.
        BundleError: a bundle has no detector.
    """
    import numpy as np

    from audiolm.detector import RATE, Detector
    from audiolm.io import read_blocks, read_metadata
    from audiolm.watermark import find as find_watermark

    detectors = {name: Detector.of(name) for name in bundles}
    sound = np.concatenate([np.zeros(0, np.float32), *read_blocks(file)])
    heard = {name: _said(detector, detector.listen(sound)) for name, detector in detectors.items()}
    marked, metadata = find_watermark(sound), read_metadata(file)
    return {
        "file": file.name,
        "seconds": round(len(sound) / RATE, 2),
        "mark": metadata.mark,
        "watermark": {
            "present": bool(marked.present),
            "score": round(float(marked.score), 4),
            "false_alarm": float(marked.false_alarm),
        },
        "detectors": heard,
        "note": NO_PROOF,
    }


def _said(detector: "Detector", verdict: "Verdict") -> dict[str, Any]:
    from audiolm.detector import RATE

    said = "too quiet to tell" if verdict.probability is None else "continued" if verdict.probability > 0.5 else "real"
    return {
        "verdict": said,
        "probability": _rounded(verdict.probability),
        "windows": [
            {"from": round(w.start / RATE, 2), "to": round(w.end / RATE, 2), "probability": _rounded(w.probability)}
            for w in verdict.windows
        ],
        "stretches": stretches(verdict.windows),
        "kinds": detector.facts.get("kinds", []),
        "held_out_accuracy": detector.facts.get("held_out_accuracy"),
    }


def stretches(windows: "Sequence[Judged]") -> list[dict[str, Any]]:
    """Where it sounds real and where continued: ``{"verdict", "from", "to"}`` in order, in seconds.

    A window that both its neighbours contradict is overruled. A change lies between the middles of two windows, since
    one that is half of each is what the detector is least sure of. Quiet windows say nothing.
    """
    from audiolm.detector import RATE

    told = [w for w in windows if w.probability is not None]
    sides = [w.probability is not None and w.probability > 0.5 for w in told]
    agreed = [sum(sides[i - 1 : i + 2]) > 1 if 0 < i < len(sides) - 1 else side for i, side in enumerate(sides)]
    changes = [i for i in range(len(told)) if i == 0 or agreed[i] != agreed[i - 1]]
    middles = [(w.start + w.end) / 2 for w in told]
    begins = [told[0].start if i == 0 else (middles[i - 1] + middles[i]) / 2 for i in changes]
    ends = [*begins[1:], told[-1].end] if told else []
    return [
        {"verdict": "continued" if agreed[i] else "real", "from": round(a / RATE, 1), "to": round(b / RATE, 1)}
        for i, a, b in zip(changes, begins, ends, strict=True)
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def lines_of(found: dict[str, Any]) -> list[str]:
    """For people."""
    lines = [f"{found['file']}, {found['seconds']:g} s"]
    lines += [f"the file says: {found['mark'] or 'nothing of its origin'}"]
    mark = found["watermark"]
    chance = f"; a sound without it would look so in {mark['false_alarm']:.2g} of cases" if mark["present"] else ""
    lines += [f"watermark: {'found' if mark['present'] else 'not found'} (score {mark['score']:g}{chance})"]
    for name, said in found["detectors"].items():
        taught = f" (taught {', '.join(said['kinds'])})" if said["kinds"] else ""
        sure = "" if said["probability"] is None else f", probability of being continued {said['probability']:.3f}"
        lines += [f"detector of {name}{taught}: {said['verdict']}{sure}"]
        if len(said["stretches"]) > 1:
            parts = [f"{each['verdict']} {each['from']:g} to {each['to']:g} s" for each in said["stretches"]]
            lines += [f"  not of one piece, about: {', '.join(parts)}"]
        lines += ["  by second: " + " ".join(_second(window) for window in said["windows"])]
    return [*lines, NO_PROOF]


def _second(window: dict[str, Any]) -> str:
    p = window["probability"]
    return f"{window['from']:g}:{'quiet' if p is None else f'{p:.2f}'}"


def train_detector(
    bundle: BundleName,
    data: Data,
    out: Annotated[Path, typer.Option(help="file of the detector; the bundle's own is BUNDLE/detector.safetensors")],
    *,
    minutes: Annotated[float, typer.Option(min=0.5, help="of continuations, and as much of recordings")] = 40.0,
    heard: Heard = 3.0,
    seconds: Seconds = 7.0,
    other: Annotated[
        list[str] | None, typer.Option(help="recordings of another kind, never continued; may be repeated")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="of training")] = 500,
    work: Annotated[
        Path | None, typer.Option(help="folder of the continuations; else OUT with the ending .work")
    ] = None,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """A detector of a bundle's continuations, from sound that it was trained on. Goes on where it was stopped."""
    import torch

    from audiolm.bundle import load_bundle
    from audiolm.eval.clips import Held
    from audiolm.eval.detector_training import train
    from audiolm.eval.sides import Side, stored, strangers

    torch.set_num_threads(threads)
    held, parts = [Held.open(item) for item in data or []], load_bundle(bundle)
    if not held:
        raise InputError("a detector is trained on sound that the bundle was trained on; give --data FOLDER=speech")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is not a folder; make it, or give another file", path=str(out))
    count = max(2, round(60 * minutes / seconds))
    pairs = stored(parts, held, Side(heard, seconds, seed), count, work or out.with_suffix(".work"), progress=say)
    foreign = strangers([Held.open(item) for item in other or []], count // 2, seconds, seed)
    detector = train(pairs, strangers=foreign, steps=steps, seed=seed, progress=say)
    detector.facts |= {
        "bundle": parts.name,
        "fingerprint": parts.fingerprint[:12],
        "kinds": sorted({each.kind for each in held}),
        "data": [each.name for each in held],
    }
    typer.echo(json.dumps({"detector": str(detector.save(out)), **detector.facts}))


def eval_detect(
    bundle: BundleName,
    *,
    data: Data = None,
    prompts: Prompts = 24,
    heard: Heard = 3.0,
    seconds: Seconds = 7.0,
    others: Annotated[bool, typer.Option(help="acoustic-only and dream too, and coding with fewer levels")] = True,
    detector: Annotated[Path | None, typer.Option(help="a detector's file; else the bundle's")] = None,
    engine: Played = "auto",
    out: Out = OUT,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Real or continued: how often the bundle's detector is right on unseen sound, and through MP3 and Opus."""
    bench = Bench.open(bundle, data, out, seed, threads)
    how: dict[str, Any] = {"prompts": prompts, "heard": heard, "seconds": seconds, "others": others}
    take_detect(bench, **how, bundle=bundle, file=detector, engine=engine)
    bench.summary()


def take_detect(
    bench: Bench,
    *,
    prompts: int = 24,
    heard: float = 3.0,
    seconds: float = 7.0,
    others: bool = True,
    bundle: str | None = None,
    file: Path | None = None,
    engine: str = "auto",
    again: bool = True,
) -> None:
    """Put the section ``detect`` into the report: of the detector in ``bundle`` (else the shipped one), or of ``file``.

    Raises:
        BundleError: the bundle has no detector, or the file is none.
    """
    import hashlib

    from audiolm.bundle import find
    from audiolm.detector import FILE, Detector
    from audiolm.eval.detect import detect as measured
    from audiolm.eval.detect_plot import detect_plot

    own = find(bundle or bench.model.parts.name) / FILE if file is None else file
    net = Detector.load(own)
    player = bench.playing(engine)

    def make(**settings: Any) -> "Section":
        section = measured(net, player, bench.held, **settings)
        bench.draw(section, "detect.png", lambda path: detect_plot(section.figures["corpora"], path))
        return section

    which = hashlib.sha256(own.read_bytes()).hexdigest()[:12]
    given: dict[str, Any] = {"prompts": prompts, "heard": heard, "seconds": seconds, "others": others}
    bench.measure("detect", make, again=again, told={"detector": which, "engine": player.engine}, **given)
