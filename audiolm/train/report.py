"""The report of a preparation: what was taken, refused and corrected, with reasons, counts and hours."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from audiolm.train.checks import Examined
from audiolm.train.shards import CorpusWriter

SHOWN = 5


@dataclass
class Report:
    """Collects while files are read; :meth:`as_dict` is ``report.json``, :func:`summary` says it to people."""

    notes: list[str] = field(default_factory=list)
    refused: dict[str, dict[str, Any]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    seconds: float = 0.0
    groups: dict[str, set[str]] = field(default_factory=lambda: {"train": set(), "dev": set()})
    _corrected: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _clipped: dict[str, float] = field(default_factory=dict)
    _silent: float = 0.0

    def refuse(self, name: str, kind: str, reason: str, seconds: float = 0.0) -> None:
        """Note a sound that is left out."""
        self.refused[name] = {"kind": kind, "reason": reason, "seconds": round(seconds, 2)}

    def take(self, file: str, name: str, found: Examined) -> None:
        """Note a sound that goes into the corpus, and what was done to it."""
        self.taken.add(file)
        self.seconds += found.seconds
        self._silent += found.silent * found.seconds
        for what, amount in found.corrected.items():
            self._corrected[what].append(amount)
        if found.clipped:
            self._clipped[name] = found.clipped

    def first(self) -> str:
        """How much was refused and the first of it, as the end of an error; nothing where nothing was."""
        if not self.refused:
            return ""
        name, row = next(iter(self.refused.items()))
        kinds = ", ".join(f"{int(found['clips'])} {kind}" for kind, found in self.reasons().items())
        return f"; {len(self.refused)} refused, the first is {name}: {row['reason']} ({kinds})"

    def reasons(self) -> dict[str, dict[str, float]]:
        """Clips and hours refused, by kind."""
        kinds = Counter(row["kind"] for row in self.refused.values())
        return {
            kind: {
                "clips": count,
                "hours": _hours(sum(row["seconds"] for row in self.refused.values() if row["kind"] == kind)),
            }
            for kind, count in kinds.most_common()
        }

    def as_dict(self, sides: dict[str, CorpusWriter], by: str) -> dict[str, Any]:
        """Everything, as JSON holds it; clipped are the shares of samples at full scale of clips that were taken."""
        corrected = {what: _spread(amounts) for what, amounts in sorted(self._corrected.items())}
        worst = sorted(self._clipped.items(), key=lambda item: -item[1])
        return {
            "files": {"taken": len(self.taken), "hours": _hours(self.seconds)},
            "splits": {"by": by} | {name: self._side(name, writer) for name, writer in sides.items()},
            "reasons": self.reasons(),
            "corrected": corrected,
            "silent": round(self._silent / self.seconds, 4) if self.seconds else 0.0,
            "clipped": {"clips": len(worst), "worst": {name: round(share, 5) for name, share in worst[:SHOWN]}},
            "notes": self.notes,
            "refused": self.refused,
        }

    def _side(self, name: str, writer: CorpusWriter) -> dict[str, Any]:
        return {"clips": len(writer), "hours": _hours(writer.samples / 16000), "groups": len(self.groups[name])}


def _spread(amounts: list[float]) -> dict[str, float]:
    return {
        "clips": len(amounts),
        "least": round(min(amounts), 3),
        "mean": round(sum(amounts) / len(amounts), 3),
        "most": round(max(amounts), 3),
    }


def _hours(seconds: float) -> float:
    return round(seconds / 3600, 6)


UNITS = {"level": " dB", "held back by its peak": " dB", "trimmed": " s", "offset": ""}


def summary(report: dict[str, Any]) -> str:
    """The report in a few lines."""
    lines = [f"taken: {report['files']['taken']} files, {_length(report['files']['hours'])}"]
    for name in ("train", "dev"):
        side = report["splits"].get(name)
        if side:
            lines.append(
                f"{name}: {side['clips']} clips, {_length(side['hours'])}, {side['groups']} speakers or pieces"
                f" (split by {report['splits']['by']})"
            )
    for kind, row in report["reasons"].items():
        lines.append(f"refused, {kind}: {row['clips']} ({_length(row['hours'])}), {_examples(report, kind)}")
    for what, row in report["corrected"].items():
        amount = f", {row['least']:g} to {row['most']:g}{UNITS[what]}" if what in UNITS else ""
        lines.append(f"corrected, {what}: {row['clips']} clips{amount}")
    if report["clipped"]["clips"]:
        share = max(report["clipped"]["worst"].values())
        lines.append(f"clipped in places: {report['clipped']['clips']} clips, at most {share:.2%} of one's samples")
    lines.append(f"silent: {report['silent']:.0%} of the time")
    return "\n".join([*lines, *(f"note: {note}" for note in report["notes"])]) + "\n"


def _length(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 0.1 else f"{hours * 3600:.1f} s"


def _examples(report: dict[str, Any], kind: str) -> str:
    names = [name for name, row in report["refused"].items() if row["kind"] == kind]
    return f"e.g. {names[0]}: {report['refused'][names[0]]['reason']}"
