"""Pictures for a model card: spectrograms side by side, curves of free running and of training. Small PNG files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.clips import Held, Prompt, prompts
from audiolm.eval.continuation import MODEL, Continued, continue_all
from audiolm.eval.drift import TITLES
from audiolm.eval.music import spectra
from audiolm.eval.need import need
from audiolm.eval.report import Progress, Section, quiet, within
from audiolm.model import AudioLM
from audiolm.train.data import RATE
from audiolm.train.shards import Array

MOST_BYTES = 300_000
DOTS = (90, 70, 50, 35)  # an inch: the first that keeps the file small
QUIETEST, LOUDEST = -90.0, -20.0  # dB, of the colours
BANDS, POINTS = 96, 400


@contextmanager
def figure(path: Path, rows: int, columns: int, size: tuple[float, float]) -> Iterator[Any]:
    """Axes ``[rows][columns]`` of a figure that is written to ``path`` at the end, of under 300 kB.

    Raises:
        InputError: matplotlib is not there, or the file cannot be written.
    """
    need("matplotlib").use("Agg")
    plots = need("matplotlib.pyplot")
    drawing, axes = plots.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    try:
        yield axes
        for dots in DOTS:
            drawing.savefig(path, dpi=dots)
            if path.stat().st_size < MOST_BYTES:
                break
    except OSError as error:
        raise InputError(f"the plot {path} cannot be written ({error.strerror}); give another --out") from error
    finally:
        plots.close(drawing)


def mel_picture(sound: Array) -> Array:
    """``[bands, frames]`` in dB: 96 mel bands, at most 400 columns, each the mean of its time."""
    from audiolm.features import mel_filters

    bank = mel_filters(1024, BANDS, RATE).numpy()
    found = spectra(sound, 1024, 160) @ bank
    width = max(1, -(-len(found) // POINTS))
    starts = np.arange(0, len(found), width)
    return np.asarray(20 * np.log10(np.maximum(np.add.reduceat(found, starts) / width, 1e-6)).T)


def spectrograms(rows: Sequence[tuple[str, Continued]], path: Path) -> None:
    """A row a prompt: the recording, the recording through the codec, and prompt and continuation, a line between."""
    with figure(path, len(rows), 3, (13, 2.1 * len(rows))) as axes:
        for line, (label, each) in zip(axes, rows, strict=True):
            prompt = each.prompt
            for axis, (title, sound) in zip(line, _three(each), strict=True):
                end = len(sound) / RATE
                axis.imshow(
                    mel_picture(sound),
                    origin="lower",
                    aspect="auto",
                    extent=(0, end, 0, BANDS),
                    vmin=QUIETEST,
                    vmax=LOUDEST,
                    cmap="magma",
                )
                axis.axvline(len(prompt.sound) / RATE, color="white", linewidth=1)
                axis.set_title(f"{label}: {title}", fontsize=8)
                axis.set_yticks([])
                axis.tick_params(labelsize=7)
        for axis in axes[-1]:
            axis.set_xlabel("seconds", fontsize=7)


def _three(each: Continued) -> list[tuple[str, Array]]:
    start = each.prompt.sound
    return [
        ("recording", np.concatenate((start, each.prompt.truth))),
        ("through the codec", each.coded),
        ("prompt | continuation", np.concatenate((start, each.sounds[MODEL]))),
    ]


def drift_plot(figures: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """The figures of section ``drift``, minute by minute; the band is from the data's least to its most."""
    with figure(path, len(figures), len(TITLES), (15, 2.4 * len(figures))) as axes:
        for line, (name, both) in zip(axes, figures.items(), strict=True):
            for axis, (key, title) in zip(line, TITLES.items(), strict=True):
                made, real = both["made"][key], both["data"][key]
                axis.axhspan(min(real), max(real), color="tab:green", alpha=0.2)
                axis.plot(range(1, len(made) + 1), made, marker="o", markersize=3, color="tab:blue")
                axis.set_title(f"{name}: {title}", fontsize=7)
                axis.tick_params(labelsize=7)
        for axis in axes[-1]:
            axis.set_xlabel("minute (band: data)", fontsize=7)


# -- training curves --


def read_log(path: Path) -> dict[str, tuple[Array, Array]]:
    """Minutes and values of each quantity of a run's JSONL log; a line cut short by an interruption is left out.

    Raises:
        InputError: it cannot be read or holds no row.
    """
    try:
        lines = path.read_text(encoding="utf8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the log {path} cannot be read ({error})", path=str(path)) from error
    rows = [row for row in map(_row, lines) if row is not None]
    if not rows:
        raise InputError(f"{path} holds no row with minutes or steps; expected a training's JSONL log", path=str(path))
    clock = "minutes" if all("minutes" in row for row in rows) else "step"
    keys = {key for row in rows for key, value in row.items() if isinstance(value, (int, float))} - {"minutes", "step"}
    found = {}
    for key in sorted(keys):
        points = np.asarray([(row[clock], row[key]) for row in rows if key in row], np.float64)
        found[key] = (points[:, 0], points[:, 1])
    return found


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"minutes", "step"} & set(row) else None


def is_loss(name: str) -> bool:
    """Whether a quantity belongs in the plot: no clock, rate, speed or single level."""
    return (
        not name.startswith(("dev_0", "dev_1"))
        and not any(word in name for word in ("rate", "left", "second", "share", "epoch", "gradient", "scale"))
        and not name.rpartition("_")[2].isdigit()
    )


def curves(logs: Sequence[Path], path: Path) -> None:
    """The training curves of the given logs, a panel each.

    Raises:
        InputError: a log cannot be read, or there is none.
    """
    if not logs:
        raise InputError("no training log was given; give the .jsonl files of a training")
    found = [(log.stem, {key: xy for key, xy in read_log(log).items() if is_loss(key)}) for log in logs]
    wide = min(3, len(found))
    tall = -(-len(found) // wide)
    with figure(path, tall, wide, (4.5 * wide, 2.8 * tall)) as axes:
        for axis, (name, lines) in zip(axes.flat, found, strict=False):
            for key, (x, y) in lines.items():
                axis.plot(x, y, label=key, linewidth=1)
            axis.set_title(name, fontsize=9)
            axis.set_xlabel("minutes or steps", fontsize=7)
            axis.tick_params(labelsize=7)
            if lines:
                axis.legend(fontsize=6)
        for axis in list(axes.flat)[len(found) :]:
            axis.set_visible(False)


# -- the section --


def plots(
    model: AudioLM,
    held: Sequence[Held],
    out: Path,
    *,
    count: int = 2,
    heard: float = 4.0,
    seconds: float = 4.0,
    seed: int = 0,
    logs: Sequence[Path] = (),
    progress: Progress = quiet,
) -> Section:
    """The section ``plots`` of the report: spectrograms of ``count`` prompts a corpus, and the curves of ``logs``.

    Raises:
        InputError: matplotlib is not there, a corpus has nothing long enough, or ``out`` cannot be written.
    """
    section = Section("plots", "By eye")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made ({error.strerror}); give another --out") from error
    rows = []
    for data in held:
        given: list[Prompt] = prompts(data, count, heard, seconds, seed)
        told = within(progress, data.name)
        rows += [(data.name, each) for each in continue_all(model, given, seed=seed, bare=False, progress=told)]
    if rows:
        spectrograms(rows, out / "spectrograms.png")
        section.plots.append("spectrograms.png")
    if logs:
        curves(logs, out / "curves.png")
        section.plots.append("curves.png")
    return section
