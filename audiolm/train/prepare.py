"""From a folder of sound files or a manifest to corpora for training and dev, and a report.

:mod:`audiolm.train.sources` finds the files, :mod:`audiolm.train.checks` examines each, :mod:`audiolm.train.splits`
says where it goes, :mod:`audiolm.train.shards` writes; the order of things is here. A corpus that was there is replaced
at the very end, so an interruption or a full disk leaves it as it was.
"""

import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from audiolm.errors import ConfigError, InputError
from audiolm.train.checks import RATE, Checks, Examined, examine_all, examine_file
from audiolm.train.data import Corpus
from audiolm.train.duplicates import Seen
from audiolm.train.report import Report, summary
from audiolm.train.shards import CorpusWriter
from audiolm.train.sources import Item, Source, open_source, piece_of
from audiolm.train.splits import Plan, make_plan

REFUSED = "refused.json"
REPORT = "report.json"
SUMMARY = "report.txt"
logger = logging.getLogger("audiolm.train")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PrepareRecipe(Checks):
    """How to prepare: the checks of each sound, and the split.

    ``near_duplicates`` refuses the same recording at another level or in another format; ``dev_share`` is of the time;
    ``group`` a regular expression that finds the speaker or piece in a name (else the speaker of the manifest, the
    first folder, or a loose file's name without its last ``_N``); ``only`` keeps rows of a manifest by column and
    values; ``jobs`` processes read files.
    """

    near_duplicates: bool = True
    dev_share: float = 0.05
    group: str | None = None
    only: dict[str, list[str]] = field(default_factory=dict)
    shard_mib: float = 1024
    jobs: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        super().__post_init__()
        if not 0 < self.dev_share <= 0.5:
            raise ConfigError(f"prepare.dev_share is {self.dev_share}; expected above 0, at most 0.5")
        if not 1 <= self.jobs <= 256:
            raise ConfigError(f"prepare.jobs is {self.jobs}; expected 1 to 256")


@dataclass(frozen=True)
class Prepared:
    """The corpora, and the report (as in ``report.json``)."""

    train: Corpus
    dev: Corpus
    report: dict[str, Any]

    @property
    def summary(self) -> str:
        """The report in a few lines."""
        return summary(self.report)


def prepare_data(
    source: str | Path, out: str | Path, recipe: PrepareRecipe | None = None, progress: Progress | None = None
) -> Prepared:
    """Make the corpora ``out/train`` and ``out/dev`` of a folder or manifest; ``out/report.json`` and ``.txt`` tell.

    Where that report was made of the same files (by name, size and time) with the same recipe, nothing is read again.
    ``progress(done, all)`` is called after each file.

    Raises:
        InputError: there is no such source, nothing in it can be used, it is too little to split, or ``out`` cannot
            be written.
    """
    how, root = recipe or PrepareRecipe(), Path(out)
    found = open_source(Path(source), group=how.group, only=how.only)
    key = _key(found, how)
    if (done := _finished(root, key)) is not None:
        return done
    lengths, unread = _lengths(Path(source), found)
    items, report = lengths, Report(refused=dict(unread))
    for _ in range(2):  # again where all of one side was refused, with what is known to be good
        plan = _planned(items, how, report)
        report = Report([*found.notes, *plan.notes], dict(unread))
        if _write(root, items, plan, (how, key, report), progress):
            return Prepared(Corpus.open(root / "train"), Corpus.open(root / "dev"), _read(root / REPORT))
        items = [(item, length) for item, length in lengths if item.name in report.taken]
        if not items:
            raise _nothing(Path(source), report)
    raise _nothing(Path(source), report)


def prepare(folder: str | Path, out: str | Path, split: str | None = None, recipe: Checks | None = None) -> Corpus:
    """Read every sound file of ``folder`` (those of ``split`` in its manifest) into the one corpus ``out``.

    The checks are those of :func:`prepare_data`, the level is brought to -23 dBFS too. What was refused, and why, is in
    ``out/refused.json``.

    Raises:
        InputError: there is no folder, or nothing in it can be used.
    """
    root, report, seen = Path(folder), Report(), Seen()
    source = open_source(root, split=split)
    for name, reason in source.refused.items():
        report.refuse(name, "unreadable", reason)
    with CorpusWriter(out) as writer:
        for item, found in _examined([(item, 0.0) for item in source.items], recipe or Checks(), 1):
            if _is_new(item, found, seen, report, near=True):
                writer.add(_name(item, found), found.samples, item.voice)
        if not len(writer):
            raise _nothing(root, report)
        writer.commit()
    refused = {name: row["reason"] for name, row in report.refused.items()}
    _save(Path(out) / REFUSED, json.dumps(refused, indent=1) + "\n")
    if refused:
        logger.info("%d sounds refused; the reasons are in %s", len(refused), Path(out) / REFUSED)
    return Corpus.open(out)


def _planned(items: Sequence[tuple[Item, float]], how: PrepareRecipe, report: Report) -> Plan:
    """The split; an error says too what was refused before."""
    try:
        return make_plan(items, how.dev_share, how.seed, how.minimum)
    except InputError as error:
        raise InputError(f"{error}{report.first()}", **error.data) from error


def _key(source: Source, recipe: PrepareRecipe) -> str:
    """Tells whether files or recipe have changed."""
    rows: list[Any] = [asdict(recipe) | {"jobs": 0}, sorted(source.refused), source.notes]
    for item in source.items:
        known = item.path.stat() if item.path.exists() else None
        rows.append((item.name, item.group, item.voice, item.split, known and (known.st_size, known.st_mtime_ns)))
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=16).hexdigest()


def _finished(root: Path, key: str) -> Prepared | None:
    """What is there already, where it is of the same files and whole."""
    try:
        report = _read(root / REPORT)
        if report.get("key") != key:
            return None
        return Prepared(Corpus.open(root / "train"), Corpus.open(root / "dev"), report)
    except (OSError, ValueError) as error:
        logger.debug("prepared afresh: %s", error)
        return None


def _lengths(place: Path, source: Source) -> tuple[list[tuple[Item, float]], dict[str, dict[str, Any]]]:
    """Each file with its length in seconds, and those that cannot be opened."""
    from audiolm.io import probe

    out: list[tuple[Item, float]] = []
    report = Report()
    for name, reason in source.refused.items():
        report.refuse(name, "unreadable", reason)
    for item in source.items:
        try:
            out.append((item, probe(item.path).seconds))
        except InputError as error:
            report.refuse(item.name, "unreadable", str(error))
    if not out:
        raise _nothing(place, report)
    return out, report.refused


def _write(
    root: Path,
    items: Sequence[tuple[Item, float]],
    plan: Plan,
    how: tuple[PrepareRecipe, str, Report],
    progress: Progress | None,
) -> bool:
    """Read all, dev first so that what is in both is kept from training; whether both sides have something."""
    recipe, key, report = how
    ordered = sorted(items, key=lambda row: row[0].name not in plan.dev)
    seen, done = Seen(), set[str]()
    with CorpusWriter(root / "train", recipe.shard_mib) as train, CorpusWriter(root / "dev", recipe.shard_mib) as dev:
        sides = {"train": train, "dev": dev}
        for item, found in _examined(ordered, recipe, recipe.jobs):
            if progress is not None and item.name not in done:
                done.add(item.name)
                progress(len(done), len(items))
            if _is_new(item, found, seen, report, near=recipe.near_duplicates):
                for side in _place(item, found, plan, recipe.minimum, sides):
                    report.groups[side].add(item.group)
        if not (len(train) and len(dev)):
            return False
        (root / REPORT).unlink(missing_ok=True)  # until it is written again, what is there counts as unfinished
        train.commit()
        dev.commit()
        made = {"key": key, "recipe": asdict(recipe)} | report.as_dict(sides, plan.by)
    _save(root / SUMMARY, summary(made))
    _save(root / REPORT, json.dumps(made, indent=1) + "\n")
    return True


def _place(item: Item, found: Examined, plan: Plan, minimum: float, sides: dict[str, CorpusWriter]) -> list[str]:
    """Write a clip to its side; one that the border in time crosses is cut there, unless a part were too short."""
    samples, least = found.samples, minimum * RATE
    kept = len(samples) - round(plan.dev_seconds(item.name, found.start, found.seconds) / found.seconds * len(samples))
    if kept < least:
        kept = 0
    elif len(samples) - kept < least:
        kept = len(samples)
    parts = {side: part for side, part in (("train", samples[:kept]), ("dev", samples[kept:])) if len(part)}
    for side, part in parts.items():
        sides[side].add(_name(item, found), part, item.voice)
    return list(parts)


def _is_new(item: Item, found: Examined, seen: Seen, report: Report, *, near: bool) -> bool:
    """Whether a sound is taken; what it is refused for is reported."""
    name = _name(item, found)
    if found.kind:
        report.refuse(name, found.kind, found.reason, found.seconds)
        return False
    if same := seen.same(found.key):
        report.refuse(name, "duplicate", f"the same sound as {same}", found.seconds)
        return False
    others = seen.similar(found.mark, found.seconds) if near else []
    like = next((other for other in others if not _are_renders(item.name, other)), None)
    if like is not None:
        report.refuse(name, "near duplicate", f"the same recording as {like} in another form", found.seconds)
        return False
    seen.add(item.name, found.key, found.mark, found.seconds)
    report.take(item.name, name, found)
    return True


def _are_renders(one: str, other: str) -> bool:
    """Whether two names are of one file, or of renders ``piece_0`` and ``piece_1`` of one piece, alike on purpose."""
    stems = [name.rpartition(".")[0] for name in (one, other)]
    return one == other or (stems[0] != stems[1] and piece_of(one) == piece_of(other))


def _name(item: Item, found: Examined) -> str:
    """A piece of a long file carries the second at which it starts."""
    return f"{item.name}@{found.start:.0f}" if "cut" in found.corrected or found.start else item.name


def _examined(items: Sequence[tuple[Item, float]], checks: Checks, jobs: int) -> Iterator[tuple[Item, Examined]]:
    """Every sound in order. With ``jobs``, files are read ahead by as many processes, two each at most.

    Files longer than a piece are read here, a piece at a time, so that memory stays bounded.
    """
    plain = Checks(**{name: getattr(checks, name) for name in Checks.__dataclass_fields__})
    if jobs == 1:
        for item, _ in items:
            yield from ((item, found) for found in examine_file(item.path, plain))
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        for item, pending in _ahead(pool, items, plain, 2 * jobs):
            yield from ((item, found) for found in (pending.result() if isinstance(pending, Future) else pending))
    except BrokenProcessPool as error:
        raise InputError("a process that read files died, of memory perhaps; prepare with fewer jobs") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ahead(
    pool: ProcessPoolExecutor, items: Sequence[tuple[Item, float]], checks: Checks, most: int
) -> Iterator[tuple[Item, Future[list[Examined]] | Iterable[Examined]]]:
    """Each file with its result to be, at most ``most`` of them under way."""
    waiting: deque[tuple[Item, Future[list[Examined]] | Iterable[Examined]]] = deque()
    for item, seconds in items:
        short = seconds <= checks.longest
        waiting.append(
            (item, pool.submit(examine_all, item.path, checks) if short else examine_file(item.path, checks))
        )
        if len(waiting) > most:
            yield waiting.popleft()
    yield from waiting


def _nothing(place: Path, report: Report) -> InputError:
    """The error of a source that has nothing to use."""
    return InputError(
        f"nothing in {place} can be used{report.first()}; give recordings of at least a second", refused=report.refused
    )


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf8")))


def _save(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written ({error.strerror}); is there room?", path=str(path)) from error
