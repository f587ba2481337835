"""What every measuring command shares: its options, and the bench that takes a measure into the report.

A command opens a :class:`Bench` with the bundle and the held-out sound, gives it a function that makes a
:class:`~audiolm.eval.report.Section`, and ends with :meth:`Bench.summary`. Everything heavy is imported when used.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiolm.errors import InputError

if TYPE_CHECKING:
    from audiolm.eval.clips import Held
    from audiolm.eval.report import Section
    from audiolm.model import AudioLM

BundleName = Annotated[str, typer.Argument(help="a shipped bundle's name or a bundle folder")]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="held-out corpus folder, or FOLDER=speech, FOLDER=music; may be repeated; else a small set of our own",
    ),
]
Out = Annotated[Path, typer.Option(help="folder of the report")]
Seed = Annotated[int, typer.Option(min=0, help="of clips, prompts and sampling")]
Threads = Annotated[int, typer.Option(min=1, help="of torch")]
Clips = Annotated[int, typer.Option(min=1, help="crops a corpus")]
Seconds = Annotated[float, typer.Option(min=0.2, help="of a crop, or of a continuation")]
Heard = Annotated[float, typer.Option(min=0.2, help="seconds of a prompt")]
Prompts = Annotated[int, typer.Option(min=1, help="prompts a corpus")]
Minutes = Annotated[int, typer.Option(min=1, help="of free running")]
Crops = Annotated[int, typer.Option(min=1, help="token crops a stage")]
TokenMinutes = Annotated[float, typer.Option(min=0.05, help="of sound that is tokenized")]
TrainTokens = Annotated[Path | None, typer.Option(help="token file of the training data, for the unigram")]
Logs = Annotated[
    list[Path] | None, typer.Option("--log", help="JSONL log of a training, for its curve; may be repeated")
]
Manifest = Annotated[
    Path | None, typer.Option(help="CSV with the columns file and text: phone ABX of clips with English text")
]
Played = Annotated[str, typer.Option("--engine", help="what generates: auto is what `streamer run` takes")]
Where = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="only such rows of the manifest; may be repeated")
]
OUT = Path("out/eval")
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Bench:
    """What is measured, on what, and where the report goes; ``texts`` is the manifest of the set of our own.

    ``bundle`` is the model's name and state, ``source`` the name or folder that was given.
    """

    model: "AudioLM"
    held: "list[Held]"
    out: Path
    seed: int
    bundle: str
    players: "dict[str, AudioLM]" = field(default_factory=dict)
    texts: Path | None = None
    source: str = ""

    def playing(self, engine: str = "auto") -> "AudioLM":
        """The model on the engine that its user hears, for measures that generate; ``torch`` is ``self.model``.

        Raises:
            ConfigError: there is no such engine here.
        """
        from audiolm.compute.choose import resolve
        from audiolm.model import AudioLM

        chosen = resolve(engine)
        if chosen == "torch":
            return self.model
        if chosen not in self.players:
            self.players[chosen] = AudioLM(self.model.parts, chosen, watermark=False)
        return self.players[chosen]

    @classmethod
    def open(cls, bundle: str, data: list[str] | None, out: Path, seed: int, threads: int) -> "Bench":
        """Load everything, so that what is wrong is told before anything is measured.

        ``data`` None is the set of our own that fits the bundle's name, made in ``out`` the first time; an empty list
        is no data, for measures that bring their own.

        Raises:
            InputError: a corpus cannot be used, or two have one name.
        """
        import hashlib

        import torch

        from audiolm.bundle import find
        from audiolm.eval.clips import Held
        from audiolm.eval.own import kind_of, own_set, texts_of
        from audiolm.model import AudioLM

        torch.set_num_threads(threads)
        model = AudioLM.load(bundle, engine="torch", watermark=False)  # the reference's own sound is measured
        held = [Held.open(item) for item in data or []]
        if data is None:
            pitches = bool(model.parts.tokenizer.config.pitches)
            held = [own_set(kind_of(bundle, pitches=pitches), out, say)]
        names = [each.name for each in held]
        if len(set(names)) != len(names):
            raise InputError(f"the corpora need different names, got {', '.join(names)}; rename a folder")
        state = hashlib.sha256((find(bundle) / "config.json").read_bytes()).hexdigest()[:12]
        texts = texts_of(held[0], out) if data is None else None
        return cls(model, held, out, seed, f"{model.parts.name}@{state}", texts=texts, source=bundle)

    def measure(
        self,
        name: str,
        make: "Callable[..., Section]",
        *,
        again: bool = True,
        told: Mapping[str, Any] = NOTHING,
        **settings: Any,
    ) -> None:
        """Take a measure, print it and put it into the report; with ``again`` false only if it is not there yet.

        ``settings`` go to ``make`` and, with ``told``, the data and the seed, say which measure it is. ``told`` is what
        the report keeps a name of and ``make`` has already: an engine, a file.
        """
        from audiolm.eval import report as reports

        known = {**settings, **told, "data": [each.name for each in self.held], "seed": self.seed}
        before = reports.read(self.out)
        if not again and before.get("bundle") == self.bundle and reports.made_with(before, name, known):
            say(f"{name}: in the report already")
            section = before["sections"][name]
        else:
            start, spent = time.monotonic(), time.process_time()
            made = make(seed=self.seed, progress=say, **settings)
            self._mark_own(made)
            took = reports.Took(time.monotonic() - start, time.process_time() - spent)
            command = self._command(name, {**settings, **told})
            report = reports.add(self.out, made, bundle=self.bundle, command=command, settings=known, took=took)
            section = report["sections"][name]
        typer.echo("\n".join([f"### {section['title']}", "", *reports.section_lines(section)]))

    def draw(self, section: "Section", name: str, plot: Callable[[Path], None]) -> None:
        """Let ``plot`` write the picture ``name`` beside the report, and name it in the section."""
        self.out.mkdir(parents=True, exist_ok=True)
        plot(self.out / name)
        section.plots.append(name)

    def failed(self, name: str, why: str) -> None:
        """Say in the report that a measure could not be taken; it is tried again the next time."""
        from audiolm.eval import report as reports

        section = reports.Section(name, name.capitalize(), failed=why)
        reports.add(self.out, section, bundle=self.bundle, command=self._command(name, {}))
        typer.echo("\n".join([f"### {section.title}", "", *reports.section_lines(section.as_dict())]))

    def _mark_own(self, section: "Section") -> None:
        """Where the sound is the set of our own, say so; goals are for recordings, so there are none."""
        from audiolm.eval import own

        kinds = [each.kind for each in self.held if own.is_own(each.name)]
        if kinds:
            section.goals.clear()
        section.notes += [own.NOTE.format(what=own.WHAT[kind]) for kind in kinds]

    def _command(self, name: str, settings: dict[str, Any]) -> str:
        """As one would type it, folders by their names alone: paths of one machine say nothing on another."""
        from audiolm.eval.own import is_own

        data = [f"--data {each.name}={each.kind}" for each in self.held if not is_own(each.name)]
        data += [f"--data {settings['folder']}"] if settings.get("folder") else []
        typed = {
            key.replace("_", "-"): value
            for key, value in settings.items()
            if isinstance(value, int | float) or key == "engine"
        }
        options = [
            f"--{key}" if value is True else f"--{key} {value}" for key, value in typed.items() if value is not False
        ]
        return " ".join([f"audiolm eval {name} {self.model.parts.name}", *data, *options, f"--seed {self.seed}"])

    def summary(self) -> None:
        """The goals and where the report is."""
        from audiolm.eval import report as reports

        typer.echo("\n".join(reports.goal_lines(reports.read(self.out)["sections"])))
        typer.echo(f"{self.out / reports.TEXT_NAME}, {self.out / reports.JSON_NAME}")


def say(text: str) -> None:
    """Progress, apart from the figures."""
    typer.echo(text, err=True)
