"""The contract of a node, as one check: `check_node(MyNode) == []`.

A node is given made-up streams in several ways, each time as a lane would, and what it gives is compared. Sources and
sinks reach into the world, so of these only the class and the settings are looked at. It starts no thread and no event
loop, and opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydantic import BaseModel

from streamer import snapshot
from streamer.config import validate
from streamer.errors import NodeError, StreamerError
from streamer.frame import AUDIO, CONTROL
from streamer.node import Build, Facts, Node
from streamer.registry import NodeType, check_type
from streamer.trial import BreachError, Given, Play, Stream, difference

RULES: Final[Mapping[str, str]] = {
    "fits": "the class has what the runtime calls, and names known kinds",
    "settings": "its settings are accepted",
    "builds": "it can be built from its settings, and shut down",
    "runs": "it takes a stream from beginning to end, and one without sound, and an unknown command",
    "kinds": "it gives no kind that it does not declare",
    "last": "each of its streams ends with exactly one LAST",
    "order": "positions rise, and no frame overlaps the one before",
    "unchanged": "it does not change what it is given",
    "flood": "it gives a bounded number of frames for one",
    "chunking": "however the input is cut, the stream is the same",
    "reset": "a fresh state gives the same again",
    "sessions": "sessions side by side do not hear each other",
    "delay": "its output lags by no more than it declares",
    "nan": "after samples that are no numbers it recovers",
    "silence": "silence, full scale and a constant leave its output finite",
    "restore": "saved and loaded by another instance, it goes on as if nothing had been",
}
TICKS: Final = 32  # least length of the streams
MOST_TICKS: Final = 2000
TOLERANCE: Final = 1e-6  # of sound that was cut differently: libraries that add in another order differ by less


@dataclass(frozen=True, slots=True)
class Finding:
    """One breach. `rule` is a key of `RULES`, `message` says what came and what was expected."""

    rule: str
    message: str


def check_node(
    kind: NodeType, settings: BaseModel | Mapping[str, Any] | None = None, *, build: Build | None = None
) -> list[Finding]:
    """Hold a node type to the contract.

    Args:
        kind: the class.
        settings: its settings; the defaults when left out.
        build: what it is told of its graph; a bundle, for instance.

    Returns:
        what it breaks, each rule once; empty when it keeps the contract. A step that hangs, hangs here too.
    """
    try:
        check_type(kind)
    except StreamerError as error:
        return [Finding("fits", _said(error))]
    try:
        config = settings if isinstance(settings, BaseModel) else validate(kind.Config, dict(settings or {}))
        made = Build(kind.type_name) if build is None else build
        facts = kind.facts(config, made)
    except Exception as error:  # noqa: BLE001 - whatever the class raises is what was to be found
        findings: list[Finding] = []
        findings.append(Finding("settings", _said(error)))
        return findings
    with np.errstate(all="ignore"):  # what becomes of samples that are no numbers is looked at, not warned of
        return _Check(kind, config, made, facts).findings() if issubclass(kind, Node) else []


def _said(error: Exception) -> str:
    text = error.message if isinstance(error, NodeError) else str(error)
    return text if isinstance(error, StreamerError) else f"{type(error).__name__}: {text}"


class _Check:
    """The whole of one check."""

    def __init__(self, kind: type[Node], config: BaseModel, build: Build, facts: Facts) -> None:
        self.kind, self.config, self.build, self.facts = kind, config, build, facts
        self.ticks = min(max(TICKS, 2 * -(-facts.delay // facts.tick) + TICKS // 2), MOST_TICKS)
        self.inputs = {name: _chosen(kinds, facts) for name, kinds in facts.inputs.items()}
        self.found: dict[str, str] = {}

    def findings(self) -> list[Finding]:
        """Every rule after the other, as far as the node can be run at all."""
        with_node = self._built()
        if with_node is not None:
            whole = self._tried("runs", self._plain, with_node)
            if whole is not None:
                for name, rule in self._rules():
                    self._tried(name, rule, with_node, whole)
            self._tried("builds", lambda node: node.shutdown(), with_node)
        return [Finding(rule, self.found[rule]) for rule in RULES if rule in self.found]

    def _rules(self) -> Iterator[tuple[str, Callable[[Node, Given], None]]]:
        """What is held against the plain run, and the rule that is broken when one of them raises."""
        yield "reset", self._again
        yield "chunking", self._cut
        yield "sessions", self._beside
        yield "runs", self._told
        yield "runs", self._empty
        yield "silence", self._extremes
        yield "nan", self._spoilt
        yield "restore", self._restored

    def _tried(self, rule: str, work: Callable[..., Any], *args: Any) -> Any:
        """What the work gives; what it raises is a finding: under the rule that it breaks, else under this one."""
        errors: list[Exception] = []
        try:
            return work(*args)
        except Exception as error:  # noqa: BLE001 - it is what was to be found
            errors.append(error)
        self._note(errors[0].rule if isinstance(errors[0], BreachError) else rule, _said(errors[0]))
        return None

    def _note(self, rule: str, message: str) -> None:
        self.found.setdefault(rule, message)

    def _built(self) -> Node | None:
        made: Node | None = self._tried("builds", self.kind, self.config, self.build)
        return made

    # -- ways to run it ---------------------------------------------------------------------------------------------

    def _streams(self, seed: int = 0, change: Callable[[Any], Any] | None = None) -> list[Stream]:
        made = []
        for number, (name, kind) in enumerate(sorted(self.inputs.items())):
            if kind != CONTROL:
                stream = Stream.random(name, kind, self.facts, self.ticks, seed=100 * seed + number)
                made.append(stream.changed(change) if change is not None and kind == AUDIO else stream)
        return made

    def _play(self, node: Node) -> Play:
        return Play(node, self.facts, self.inputs)

    def _given(self, node: Node, streams: Sequence[Stream], **how: Any) -> Given:
        """What it gives for streams that are cut in one way; the state is released, also after an error."""
        play = self._play(node)
        try:
            play.open(None)
            for frame, into in Stream.line_up(streams, **how):
                play.put(frame, into)
            return play.given
        finally:
            play.close()

    # -- rules ------------------------------------------------------------------------------------------------------

    def _plain(self, node: Node) -> Given:
        """Tick by tick, as live sound comes; the others are compared with it."""
        streams = self._streams()
        play = self._play(node)
        lag = 0
        try:
            play.open(None)
            for frame, into in Stream.line_up(streams):
                before = frame.pack()
                new = play.put(frame, into)
                if frame.pack() != before:
                    self._note("unchanged", f"changed the {frame.kind} frame at position {frame.position} it was given")
                lag = max([lag, *(play.heard - each.position - each.samples for each in new if each.samples)])
        finally:
            play.close()
        allowed = self.facts.delay + max(self.facts.lead.values(), default=0)
        if lag > allowed:
            late = f"its output lags by {lag} samples ({lag / 16:g} ms), but it declares a delay of {self.facts.delay}"
            self._note("delay", f"{late}; say `delay = {lag - allowed + self.facts.delay}`")
        return play.given

    def _cut(self, node: Node, whole: Given) -> None:
        """Ragged pieces, one piece, and an end that comes with the last piece."""
        ways: list[tuple[str, dict[str, Any]]] = [
            ("in uneven pieces", {"seed": 1}), ("in small uneven pieces", {"seed": 2, "most": 0.3}),
            ("as one piece", {"whole": True}), ("with LAST on its last piece", {"joined": True}),
        ]  # fmt: skip
        for said, how in ways:
            self._compare(
                "chunking", f"the same input {said}", whole, self._given(node, self._streams(), **how), TOLERANCE
            )

    def _again(self, node: Node, whole: Given) -> None:
        self._compare("reset", "the same input after a fresh init_state", whole, self._given(node, self._streams()))

    def _beside(self, node: Node, whole: Given) -> None:
        """Two sessions in one lane, step by step; so `step_many` takes part."""
        play, other = self._play(node), self._play(node)
        try:
            for each in (play, other):
                each.open(None)
            other.lane = play.share(other)
            mine, theirs = Stream.line_up(self._streams()), Stream.line_up(self._streams(seed=1))
            for (frame, into), (also, there) in zip(mine, theirs, strict=True):
                other.lay(also, there)
                play.put(frame, into)
        finally:
            play.close()
            other.close()
        self._compare("sessions", "the same input beside another session", whole, play.given)

    def _told(self, node: Node, whole: Given) -> None:
        """A command that nobody knows is passed over."""
        takers = [name for name, kind in self.inputs.items() if kind == CONTROL]
        if takers:
            found = self._given(node, self._streams(), control=takers[0])
            self._compare("runs", "the same input with an unknown control command", whole, found)

    def _empty(self, node: Node, whole: Given) -> None:
        """Nothing but the end."""
        _ = whole
        self._given(node, [stream.changed(lambda items: items[:0]) for stream in self._streams()])

    def _extremes(self, node: Node, whole: Given) -> None:
        _ = whole
        changes: dict[str, Callable[[Any], Any]] = {
            "silence": np.zeros_like, "full scale": lambda x: np.where(x < 0, -1, 1).astype(np.float32),
            "a constant": np.ones_like,
        }  # fmt: skip
        for name, change in changes.items():
            found: Given | None = self._tried("silence", self._given, node, self._streams(change=change))
            if found is not None and not found.finite():
                self._note("silence", f"gave samples that are no numbers for {name}")

    def _spoilt(self, node: Node, whole: Given) -> None:
        """Samples that are no numbers, for a while; by the last quarter they must be over."""
        _ = whole

        def spoil(samples: Any) -> Any:
            made = samples.copy()
            odd = np.array([np.nan, np.inf, -np.inf, 1e30], np.float32)
            made[len(made) // 4 : len(made) // 4 + 100] = np.tile(odd, 25)
            return made

        found: Given | None = self._tried("nan", self._given, node, self._streams(change=spoil))
        after = 3 * self.ticks * self.facts.tick // 4
        if found is not None and not found.finite(after):
            self._note("nan", f"still gives samples that are no numbers {after // 24} ms after the last it was given")

    def _restored(self, node: Node, whole: Given) -> None:
        """Half by one instance, then, from what it saved, the rest by another."""
        other = self.kind(self.config, self.build)
        first, second = self._play(node), self._play(other)
        frames = list(Stream.line_up(self._streams()))
        try:
            first.open(None)
            for frame, into in frames[: len(frames) // 2]:
                first.put(frame, into)
            second.open(snapshot.loads(snapshot.dumps(first.save())))
            for frame, into in frames[len(frames) // 2 :]:
                second.put(frame, into)
        finally:
            first.close()
            second.close()
            self._tried("builds", lambda node: node.shutdown(), other)
        if self.kind.restorable:
            self._compare("restore", "the same input, saved and loaded halfway", whole, first.given + second.given)

    def _compare(self, rule: str, what: str, wanted: Given, got: Given, tolerance: float = 0.0) -> None:
        told = difference(wanted, got, tolerance)
        if told and not (rule in ("chunking", "runs") and "reset" in self.found):  # then nothing can be compared
            self._note(rule, f"{what} gives another stream: {told}")


def _chosen(kinds: frozenset[str], facts: Facts) -> str:
    """Of several kinds that an input takes: one that is given too, sound before others, control last."""
    return min(kinds, key=lambda kind: (kind == CONTROL, kind not in facts.emits, kind != AUDIO, kind))


def rules_of(kind: NodeType) -> Iterator[str]:
    """The rules that a type is held to."""
    for rule in RULES:
        if issubclass(kind, Node) or rule in ("fits", "settings"):
            yield rule
