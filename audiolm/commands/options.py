"""What the training commands share: their options, torch's settings, and how their arguments are read."""

import dataclasses
import logging
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from audiolm.errors import InputError

if TYPE_CHECKING:
    from audiolm.train.data import Corpus
    from audiolm.train.presets import Preset

T = TypeVar("T")

PresetName = Annotated[str, typer.Option("--preset", metavar="NAME|FILE", help="default, tiny, paper or a YAML file")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="change a value of the preset")]
Minutes = Annotated[float | None, typer.Option(help="the run stops itself after this time; else as in the preset")]
Steps = Annotated[int | None, typer.Option(min=1, help="stop after so many steps too")]
Batch = Annotated[int | None, typer.Option(min=1, help="crops a step; else as in the preset")]
Threads = Annotated[int, typer.Option(min=1, help="of torch; one is best where several runs share a machine")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
Precision = Annotated[str | None, typer.Option(help="no (float32) or bf16; else what each run does best with")]
Restart = Annotated[bool, typer.Option("--restart", help="begin anew instead of going on where the last call ended")]
From = Annotated[Path | None, typer.Option("--from", help="weights to start from")]
Corpora = Annotated[list[str], typer.Argument(help="corpus folders, each as FOLDER or FOLDER=SHARE")]
Out = Annotated[Path, typer.Argument(help="folder of the run's weights and logs")]
Ears = Annotated[Path, typer.Argument(help="bundle whose codec and tokenizer are used")]


def setup(threads: int, device: str = "cpu") -> None:
    """Torch's settings, checked, and the log of the training on standard output."""
    import torch

    if device not in ("cpu", "cuda"):
        raise InputError(f"device is {device!r}; expected cpu or cuda", device=device)
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; use --device cpu", device=device)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("audiolm").setLevel(logging.INFO)  # ours alone: other libraries speak at this level of their own


def preset_of(name: str, sets: list[str] | None) -> "Preset":
    """The preset of ``--preset`` and ``--set``."""
    from audiolm.train.presets import load

    return load(name, sets or ())


def given(recipe: T, **values: object) -> T:
    """The recipe with the options that were given, which are those that are not None."""
    return dataclasses.replace(recipe, **{k: v for k, v in values.items() if v is not None})  # type: ignore[type-var]


def corpora_of(items: list[str]) -> "list[tuple[Corpus, float]]":
    """Corpora and their shares from ``FOLDER`` or ``FOLDER=SHARE``."""
    from audiolm.train.data import Corpus

    out = []
    for item in items:
        folder, _, share = item.rpartition("=") if "=" in item else (item, "", "1")
        out.append((Corpus.open(folder), _number(share, f"the share of {folder}")))
    return out


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{what} is {text!r}; expected a number") from error
    if not math.isfinite(value) or value <= 0:
        raise InputError(f"{what} is {text!r}; expected a positive number")
    return value


def part_of(text: str) -> tuple[int, int]:
    """``i/n`` as numbers."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise InputError(f"part is {text!r}; expected i/n with i from 0 to n - 1, such as 0/2")
    return int(index), int(count)


def text_of(path: Path, what: str) -> str:
    """The text of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the {what} {path} cannot be read ({error}); give a text file") from error
