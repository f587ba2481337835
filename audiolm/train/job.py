"""What the training recipe is to make of what, and where everything lies."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiolm.train.data import Corpus
from audiolm.train.presets import Preset
from audiolm.train.recipe import digest
from audiolm.train.tokens import Tokens

SPLITS = ("train", "dev")


@dataclass(frozen=True)
class Job:
    """What is to be made of what.

    Attributes:
        preset: sizes and recipes.
        data: folder of sound, or a manifest.
        out: folder of the bundle.
        work: folder of everything in between.
        name: of the bundle.
        licences: what is known of the licences of the data; goes into the card as it is.
        phones: file of the phones of held-out clips, see :mod:`audiolm.eval.phones`.
        command: that makes this bundle, for the card.
        device: cpu or cuda.
        precision: no or bf16; None is what each run does best with.
    """

    preset: Preset
    data: Path
    out: Path
    work: Path
    name: str
    licences: str = ""
    phones: Path | None = None
    command: str = ""
    device: str = "cpu"
    precision: str | None = None

    @property
    def corpora(self) -> Path:
        """Folder of the corpora: the data's own where they were prepared elsewhere."""
        return self.data if is_prepared(self.data) else self.work / "corpus"

    def corpus(self, split: str) -> Corpus:
        """The corpus of a split."""
        return Corpus.open(self.corpora / split)

    def tokens(self, split: str) -> Tokens:
        """The tokens of a split."""
        return Tokens.open(self.work / "tokens" / f"{split}.safetensors")

    def going_on(self, *, fresh: bool) -> dict[str, Any]:
        """How a training is called: to go on from its state, or with ``fresh`` without regard to what is there."""
        how = {"device": self.device, "restart": fresh}
        return how if self.precision is None else how | {"precision": self.precision}

    @property
    def records(self) -> Path:
        """Folder of the records of the steps."""
        return self.work / "steps"

    @property
    def ears(self) -> Path:
        """The bundle of codec and tokenizer."""
        return self.work / "ears"


def is_prepared(data: Path) -> bool:
    """Whether ``data`` holds corpora, prepared or packed elsewhere, instead of sound files."""
    return all((data / split / "corpus.json").is_file() or (data / split / "audio.npy").is_file() for split in SPLITS)


def fingerprint(job: Job) -> str:
    """A hash of names, sizes and times of the files that will be read.

    Raises:
        InputError: there is no such folder or manifest, or no sound in it.
    """
    from audiolm.train.sources import open_source

    if is_prepared(job.data):
        paths = sorted(path for split in SPLITS for path in (job.data / split).iterdir() if path.is_file())
        named = {path.relative_to(job.data).as_posix(): (path, "") for path in paths}
    else:
        recipe = job.preset.prepare
        found = open_source(job.data, group=recipe.group, only=recipe.only)
        named = {item.name: (item.path, f"{item.split} {item.group} {item.voice}") for item in found.items}
    stats = {name: path.stat() for name, (path, _) in named.items() if path.exists()}
    return digest([(name, named[name][1], known.st_size, known.st_mtime_ns) for name, known in stats.items()])
