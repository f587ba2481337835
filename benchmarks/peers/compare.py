"""Ours and a peer in turns, and what comes of it: ratios of ratios.

Each worker measures a yardstick of its own in every round. So a figure is quoted as "times the yardstick", and ours
over theirs is the ratio of those, round by round: what slows one process or one moment cancels. Nothing here knows
what is measured.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import Environment, InstallError, python_of, say
from benchmarks.peers.talk import Figures, Worker, WorkerError

REFERENCE = "reference"
NO_ENGINE = "-"  # what has nothing to do with the engine


@dataclass(frozen=True)
class Figure:
    """One thing that is compared.

    Attributes:
        key: its name in a worker's round.
        title: for the table.
        unit: `ms`, `us` or `s`: how seconds are shown; `x` for a bare number; `x real time` for seconds a second.
        goal: the largest ratio of ours to theirs that the project wants, or with `absolute` the largest value of ours.
        yardstick: whether the figure is quoted over the worker's yardstick.
    """

    key: str
    title: str
    unit: str = "ms"
    goal: float | None = None
    absolute: bool = False
    yardstick: bool = True


@dataclass(frozen=True)
class Contest:
    """Ours beside one peer.

    Attributes:
        name: on the command line.
        peer: for the table.
        environment: where the peer runs; None: in the project's own.
        theirs, ours: module and arguments of the workers; `{engine}` in ours becomes the engine's name.
        differs: what is not the same on both sides.
        rounds: how many times each is asked.
        limit_s: the longest that a worker may be silent before it is ended.
    """

    name: str
    peer: str
    environment: Environment | None
    theirs: Sequence[str]
    ours: Sequence[str]
    figures: Sequence[Figure]
    differs: str
    rounds: int = 7
    limit_s: float = 1800.0

    @property
    def engines_matter(self) -> bool:
        """Whether ours is run once for each engine."""
        return any("{engine}" in word for word in self.ours)


@dataclass(frozen=True)
class Row:
    """One line of the table; `failed` says why there are no figures.

    `theirs` and `ours` are medians in seconds (bare numbers for `x`); the `_x` are over the yardstick.
    """

    contest: str
    peer: str
    figure: str
    unit: str
    engine: str = ""
    version: str = ""
    theirs: float | None = None
    theirs_x: float | None = None
    ours: float | None = None
    ours_x: float | None = None
    ratio: float | None = None
    goal: float | None = None
    absolute: bool = False
    rounds: int = 0
    failed: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For a line of JSON."""
        return asdict(self)


def run(contest: Contest, engines: Sequence[str], folder: Path, own_python: Path, *, tiny: bool = False) -> list[Row]:
    """Everybody in turns: the peer, then ours once for each engine; a row a figure and engine.

    A peer that does not install or run gives one row that says why, and so does an engine of ours; the others go on.
    """
    names = list(engines) if contest.engines_matter else [NO_ENGINE]
    flags = ["--tiny"] if tiny else []
    with ExitStack() as stack:
        try:
            python = own_python if contest.environment is None else python_of(contest.environment, folder)
            peer = stack.enter_context(Worker(python, [*contest.theirs, *flags], contest.limit_s))
            ours, failed = _start(contest, names, own_python, flags, stack)
            rounds = measured(peer, ours, 1 if tiny else contest.rounds) if ours else {}
            made = [row for name in ours for row in rows(contest, name, rounds[""], rounds[name])]
        except (InstallError, WorkerError) as error:
            return [_failed(contest, error)]
    about = {"theirs": peer.about, "ours": {name: worker.about for name, worker in ours.items()}}
    return [*(replace(row, version=peer.version, more={**row.more, "about": about}) for row in made), *failed]


def _start(
    contest: Contest, names: Iterable[str], python: Path, flags: Sequence[str], stack: ExitStack
) -> tuple[dict[str, Worker], list[Row]]:
    """Ours for each engine, and a row for each that did not start."""
    started: dict[str, Worker] = {}
    failed = []
    for name in names:
        try:
            started[name] = stack.enter_context(Worker(python, [*named(contest.ours, name), *flags], contest.limit_s))
        except WorkerError as error:
            failed.append(_failed(contest, error, name))
    return started, failed


def _failed(contest: Contest, error: Exception, engine: str = "") -> Row:
    say(f"{contest.name} {engine}: {error}")
    first = contest.figures[0]
    return Row(contest.name, contest.peer, first.title, first.unit, engine, failed=str(error))


def named(module: Sequence[str], engine: str) -> list[str]:
    """Ours with the engine's name filled in."""
    return [word.replace("{engine}", engine) for word in module]


def measured(peer: Worker, ours: Mapping[str, Worker], rounds: int) -> dict[str, list[Figures]]:
    """The rounds of each; the peer's under the empty name. One round more is taken first and thrown away.

    Rounds that are minutes long (`rounds` is 1) go without.
    """
    workers = {"": peer, **ours}
    for worker in workers.values() if rounds > 1 else ():
        worker.round()
    made: dict[str, list[Figures]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            made[name].append(worker.round())
    return made


def rows(contest: Contest, engine: str, theirs: Sequence[Figures], ours: Sequence[Figures]) -> list[Row]:
    """A row a figure."""
    return [row_of(contest, figure, engine, theirs, ours) for figure in contest.figures]


def row_of(contest: Contest, figure: Figure, engine: str, theirs: Sequence[Figures], ours: Sequence[Figures]) -> Row:
    """The medians of one figure, and the median of the ratios of rounds that ran side by side."""
    a, b = values(theirs, figure.key), values(ours, figure.key)
    scaled_a, scaled_b = (over_yardstick(each, figure) for each in (theirs, ours))
    return Row(
        contest.name, contest.peer, figure.title, figure.unit, engine,
        theirs=statistics.median(a), theirs_x=statistics.median(scaled_a) if figure.yardstick else None,
        ours=statistics.median(b), ours_x=statistics.median(scaled_b) if figure.yardstick else None,
        ratio=statistics.median(x / y for x, y in zip(scaled_b, scaled_a, strict=True)),
        goal=figure.goal, absolute=figure.absolute, rounds=len(a),
        more={"theirs": medians(theirs), "ours": medians(ours)},
    )  # fmt: skip


def values(rounds: Iterable[Figures], key: str) -> list[float]:
    """One figure of each round.

    Raises:
        WorkerError: a worker did not give it.
    """
    rounds = list(rounds)
    if any(key not in one for one in rounds):
        raise WorkerError(f"a worker gave no {key!r}; it gave {', '.join(sorted(rounds[0]))}")
    return [one[key] for one in rounds]


def over_yardstick(rounds: Sequence[Figures], figure: Figure) -> list[float]:
    """One figure of each round over the yardstick of the same round; as it is where it has none."""
    if not figure.yardstick:
        return values(rounds, figure.key)
    return [a / b for a, b in zip(values(rounds, figure.key), values(rounds, REFERENCE), strict=True)]


def medians(rounds: Sequence[Figures]) -> Figures:
    """Of everything that was measured."""
    return {key: statistics.median(values(rounds, key)) for key in rounds[0]}
