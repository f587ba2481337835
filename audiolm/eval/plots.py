"""Pictures for a model card: spectrograms side by side, curves of free running and of training. Small PNG files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.clips import Held, Prompt, prompts
from audiolm.eval.continuation import Continued, continue_all
from audiolm.eval.drift import TITLES
from audiolm.eval.examples import versions_of, write_sounds
from audiolm.eval.music import spectra
from audiolm.eval.need import need
from audiolm.eval.report import Progress, Section, quiet, within
from audiolm.model import AudioLM
from audiolm.train.curves import picture, read_log
from audiolm.train.data import RATE
from audiolm.train.shards import Array

MOST_BYTES = 300_000
DOTS = (90, 70, 50, 35)  # an inch: the first that keeps the file small
QUIETEST, LOUDEST = -90.0, -20.0  # dB, of the colours
BANDS, POINTS = 80, 300
LONG = 20  # minutes of free running whose points are drawn small


@contextmanager
def figure(path: Path, rows: int, columns: int, size: tuple[float, float]) -> Iterator[Any]:
    """Axes ``[rows][columns]`` of a figure that is written to ``path`` at the end, of under 300 kB if that can be.

    Raises:
        InputError: matplotlib is not there, or the file cannot be written.
    """
    drawing = need("matplotlib.figure").Figure(figsize=size, layout="constrained")
    canvas = need("matplotlib.backends.backend_agg").FigureCanvasAgg(drawing)
    yield drawing.subplots(rows, columns, squeeze=False)
    for dots in DOTS:
        drawing.set_dpi(dots)
        canvas.draw()
        data = _png(np.asarray(canvas.buffer_rgba()))
        if len(data) < MOST_BYTES:
            break
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"the plot {path} cannot be written ({error.strerror}); give another --out") from error


def _png(pixels: Array) -> bytes:
    """In 128 colours, which makes a spectrogram's file a third as long; no date, so equal plots are equal files."""
    file = BytesIO()
    image = need("PIL.Image").fromarray(np.ascontiguousarray(pixels[..., :3]))
    image.quantize(128, dither=0).save(file, "PNG", optimize=True)
    return file.getvalue()


def mel_picture(sound: Array) -> Array:
    """``[bands, frames]`` in dB: 80 mel bands, at most 300 columns, each the mean of its time."""
    from audiolm.features import mel_filters

    bank = mel_filters(1024, BANDS, RATE).numpy()
    found = spectra(sound, 1024, 160) @ bank
    width = max(1, -(-len(found) // POINTS))
    starts = np.arange(0, len(found), width)
    return np.asarray(20 * np.log10(np.maximum(np.add.reduceat(found, starts) / width, 1e-6)).T)


def spectrograms(rows: Sequence[tuple[str, Continued]], path: Path) -> None:
    """A row a prompt: the recording, through the codec, and prompt and continuation by each hand, a line between."""
    made = [versions_of(each) for _, each in rows]
    with figure(path, len(rows), max(map(len, made)), (13, 2.1 * len(rows))) as axes:
        for line, (label, each), sounds in zip(axes, rows, made, strict=True):
            prompt = each.prompt
            for axis, (title, sound, _) in zip(line, sounds, strict=False):
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


def drift_plot(figures: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """The figures of section ``drift``, minute by minute; the band is from the data's least to its most.

    Long runs have a dashed line, their trend by least squares.
    """
    with figure(path, len(figures), len(TITLES), (15, 2.4 * len(figures))) as axes:
        for line, (name, both) in zip(axes, figures.items(), strict=True):
            for axis, (key, title) in zip(line, TITLES.items(), strict=True):
                made, real = both["made"][key], both["data"][key]
                axis.axhspan(min(real), max(real), color="tab:green", alpha=0.2)
                size, times = (3, 1.2) if len(made) < LONG else (1.5, 0.6), range(1, len(made) + 1)
                axis.plot(times, made, marker="o", markersize=size[0], linewidth=size[1], color="tab:blue")
                if len(made) >= LONG:
                    axis.plot(times, np.polyval(np.polyfit(times, made, 1), times), "--", lw=1, color="tab:red")
                axis.set_title(f"{name}: {title}", fontsize=7)
                axis.tick_params(labelsize=7)
        for axis in axes[-1]:
            axis.set_xlabel("minute (band: data)", fontsize=7)


def curves(logs: Sequence[Path], path: Path) -> None:
    """The curves of trainings' JSONL logs, a panel each.

    Raises:
        InputError: a log holds no row, or ``path`` cannot be written.
    """
    rows = {log.stem: read_log(log) for log in logs}
    empty = [log for log in logs if not rows[log.stem]]
    if empty:
        raise InputError(
            f"{empty[0]} holds no row of a training; give the .jsonl file that a run wrote", path=str(empty[0])
        )
    try:
        picture(rows, path)
    except OSError as error:
        raise InputError(f"the plot {path} cannot be written ({error.strerror}); give another --out") from error


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
    """The section ``plots`` of the report: spectrograms and sounds of ``count`` prompts a corpus, curves of ``logs``.

    Raises:
        InputError: matplotlib is not there, a corpus has nothing long enough, or ``out`` cannot be written.
    """
    section = Section("plots", "By eye and by ear")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made ({error.strerror}); give another --out") from error
    rows = []
    for data in held:
        given: list[Prompt] = prompts(data, count, heard, seconds, seed)
        told = within(progress, data.name)
        rows += [(data.name, each) for each in continue_all(model, given, seed=seed, progress=told)]
    if rows:
        spectrograms(rows, out / "spectrograms.png")
        section.plots.append("spectrograms.png")
        section.sounds += write_sounds(rows, out)
    if logs:
        curves(logs, out / "training.png")
        section.plots.append("training.png")
    return section
