"""Pictures of figures over something that grows: time after a prompt, and bit rate. Small PNG files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiolm.eval.continuation import BARE, CODEC, MODEL, OTHER
from audiolm.eval.plots import figure
from audiolm.eval.stats import Estimate

COLOURS = {MODEL: "tab:blue", BARE: "tab:orange", OTHER: "tab:gray", CODEC: "tab:green"}
FAMILIES = ("tab:blue", "tab:orange", "tab:green", "tab:red")


def hierarchy_plot(figures: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str], path: Path) -> None:
    """The figures of section ``hierarchy``: a row a corpus, a panel a measure, a line a system over the time.

    Bands are the 95 % intervals of the two that are compared.
    """
    shown = {name: [key for key in titles if key in found["systems"][MODEL]] for name, found in figures.items()}
    width = max(map(len, shown.values()))
    with figure(path, len(figures), width, (2.3 * width, 2.4 * len(figures))) as axes:
        for line, (name, keys) in zip(axes, shown.items(), strict=True):
            for axis in line[len(keys) :]:
                axis.set_axis_off()
            for axis, key in zip(line, keys, strict=False):
                for system, by in figures[name]["systems"].items():
                    if key in by:
                        _line(axis, system, COLOURS[system], _times(by[key]))
                axis.set_title(f"{name}: {titles[key]}", fontsize=7)
                axis.set_xlabel("seconds after the prompt", fontsize=7)
                axis.tick_params(labelsize=7)
            line[0].legend(fontsize=6)


def _times(found: Mapping[str, Estimate]) -> list[tuple[float, Estimate]]:
    """What was measured at a time; not what is of the whole run."""
    points = [(float(end), each) for end, each in found.items() if end != "all"]
    return [(end, each) for end, each in points if each.n]


def _line(axis: Any, label: str, colour: str, points: Sequence[tuple[float, Estimate]]) -> None:
    times, values = [end for end, _ in points], [each for _, each in points]
    if label in (MODEL, BARE):
        axis.fill_between(times, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.2, lw=0)
    axis.plot(times, [v.mean for v in values], marker="o", markersize=2, linewidth=1, color=colour, label=label)


def rate_plot(figures: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str], path: Path) -> None:
    """The systems of section ``reconstruction``: a row a corpus, a panel a measure, a line a codec over kbit/s."""
    shown = {name: [k for k in titles if k in next(iter(found.values()))] for name, found in figures.items()}
    width = max(map(len, shown.values()))
    with figure(path, len(figures), width, (2.6 * width, 2.4 * len(figures))) as axes:
        for line, (name, keys) in zip(axes, shown.items(), strict=True):
            for axis, key in zip(line, keys, strict=False):
                for colour, (family, rows) in zip(_colours(), families(figures[name]).items(), strict=False):
                    points = [(row["bit_rate"] / 1000, row[key]) for row in rows if row[key].n]
                    rates, means = [rate for rate, _ in points], [each.mean for _, each in points]
                    reach = [
                        [each.mean - each.low for _, each in points],
                        [each.high - each.mean for _, each in points],
                    ]
                    axis.errorbar(rates, means, reach, marker="o", markersize=3, lw=1, color=colour, label=family)
                axis.set_xscale("log")
                axis.set_xticks([3, 6, 12, 24], ["3", "6", "12", "24"], minor=False)
                axis.minorticks_off()
                axis.set_title(f"{name}: {titles[key]}", fontsize=7)
                axis.set_xlabel("kbit/s", fontsize=7)
                axis.tick_params(labelsize=7)
            line[0].legend(fontsize=6)


def _colours() -> Iterator[str]:
    while True:
        yield from FAMILIES


def families(systems: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Systems by codec, each by rising rate: ``6 levels`` is ours, ``Opus 12`` is Opus."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for name, system in systems.items():
        found.setdefault("this codec" if name.endswith(" levels") else name.rpartition(" ")[0], []).append(system)
    return {family: sorted(rows, key=lambda row: row["bit_rate"]) for family, rows in found.items()}
