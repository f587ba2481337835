"""The picture of section ``detect``: how often the detector is right, kind by kind, and how its probabilities hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiolm.eval.plots import figure


def detect_plot(figures: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """The figures of section ``detect``, a line a corpus; bars have their 95 % intervals, circles grow with windows."""
    with figure(path, len(figures), 2, (13, 4.5 * len(figures))) as axes:
        for (bars, curve), (name, found) in zip(axes, figures.items(), strict=True):
            kinds = {kind: row for kind, row in found["kinds"].items() if row["right"].n}
            _bars(bars, kinds)
            bars.set_title(f"{name}: right, of 1 (recordings green)", fontsize=9)
            _reliability(curve, found["reliability"])
            curve.set_title(f"{name}: calibration of windows, error {found['calibration_error']:.3f}", fontsize=9)


def _bars(axis: Any, kinds: Mapping[str, Mapping[str, Any]]) -> None:
    rights = [row["right"] for row in kinds.values()]
    spread = [[each.mean - each.low for each in rights], [each.high - each.mean for each in rights]]
    colours = ["tab:blue" if row["continued"] else "tab:green" for row in kinds.values()]
    axis.barh(list(kinds), [each.mean for each in rights], xerr=spread, color=colours, height=0.7)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.tick_params(labelsize=7)


def _reliability(axis: Any, rows: list[list[Any]]) -> None:
    axis.plot([0, 1], [0, 1], "--", lw=1, color="tab:gray")
    total = sum(row[2] for row in rows) or 1
    sizes = [20 + 400 * row[2] / total for row in rows]
    axis.scatter([row[3] for row in rows], [row[4] for row in rows], s=sizes, alpha=0.6)
    axis.set_xlabel("probability that was said", fontsize=8)
    axis.set_ylabel("share that was continued", fontsize=8)
