"""How much of the words semantic tokens carry: word error rates of recordings, coded ones and resynthesized ones.

A clip whose text is known is heard by a recognizer as it is, through the codec, and resynthesized: its own semantic
tokens are forced and the acoustic ones sampled, without a voice to follow, as the AudioLM paper does for its word error
rates. What errors the resynthesis adds lie in the semantic tokens and in the acoustic stages, not in what is said.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.clips import Held, whole
from audiolm.eval.recognize import Recognizer, edits, error_rate, recognized, words_of
from audiolm.eval.reconstruction import declared_delay, reconstruct
from audiolm.eval.report import Cell, Progress, Section, quiet
from audiolm.eval.stats import Estimate, estimate
from audiolm.model import AudioLM
from audiolm.train.data import RATE
from audiolm.train.shards import Array

SAID, CODED, FORCED, CHANCE = "recording", "recording, coded", "resynthesized", "resynthesized, another's text"
SHORTEST, LONGEST = 2.0, 12.0  # seconds of a clip
FEWEST = 6  # clips


@dataclass(frozen=True)
class Words:
    """What word error rates are taken with: a recognizer and its name, and texts by clip.

    Attributes:
        texts: of the clips of the corpora.
        spare: gives a corpus and its texts, for corpora of whose clips no text is known.
        narrow: makes a recognizer that knows the given words alone.
    """

    listen: Recognizer
    meter: str
    texts: Mapping[str, str]
    spare: Callable[[], tuple[Held, Mapping[str, str]]] | None = None
    narrow: Callable[[Iterable[str]], Recognizer] | None = None


@dataclass(frozen=True)
class Clip:
    """A sound, float32 at 16 kHz, and the words that are said in it."""

    sound: Array
    words: list[str]


@dataclass(frozen=True)
class Heard:
    """What was said in each clip, and what was heard in each of its sounds."""

    said: list[list[str]]
    heard: dict[str, list[list[str]]]
    seconds: list[float]

    def rate(self, system: str, seed: int = 0) -> Estimate:
        """The word error rate of one of the sounds, or of the resynthesized ones against other clips' texts."""
        heard = self.heard[FORCED if system == CHANCE else system]
        if system == CHANCE:
            heard = [heard[j] for j in self._partners()]
        errors = [edits(said, other) for said, other in zip(self.said, heard, strict=True)]
        return error_rate(errors, [len(said) for said in self.said], seed)

    def _partners(self) -> list[int]:
        """For each clip another one, whose text is as long as can be found."""
        size = np.array([len(said) for said in self.said])
        apart = np.abs(size[:, None] - size).astype(float)
        np.fill_diagonal(apart, np.inf)
        return [int(each) for each in apart.argmin(1)]

    def pace(self, system: str) -> Estimate:
        """Words heard a second."""
        return estimate([len(each) / time for each, time in zip(self.heard[system], self.seconds, strict=True)])


def told(held: Held, texts: Mapping[str, str], seconds: float, seed: int) -> list[Clip]:
    """Clips of 2 to 12 s of the corpus whose text is known, drawn by ``seed`` until they are ``seconds`` together."""
    corpus, found, total = held.corpus, list[Clip](), 0.0
    fit = [i for i, name in enumerate(corpus.names) if words_of(texts.get(name, ""))]
    fit = [i for i in fit if SHORTEST <= corpus.index[i, 1] / RATE <= LONGEST]
    for at in np.random.default_rng(seed).permutation(len(fit)):
        if total >= seconds:
            break
        found.append(Clip(whole(corpus.clip(fit[at])), words_of(texts[corpus.names[fit[at]]])))
        total += len(found[-1].sound) / RATE
    return found


def sounds_of(
    model: AudioLM, clips: Sequence[Clip], *, seed: int = 0, progress: Progress = quiet
) -> dict[str, list[Array]]:
    """Every clip as it is, coded and resynthesized; clip ``i`` with seed ``seed + i``."""
    found: dict[str, list[Array]] = {SAID: [clip.sound for clip in clips], CODED: [], FORCED: []}
    codec = model.parts.codec
    for i, sound in enumerate(found[SAID]):
        progress(f"words, clip {i + 1} of {len(clips)}")
        coded = reconstruct(codec, sound, [codec.config.levels])[0]
        found[CODED].append(coded[declared_delay(codec) :][: len(sound)])
        found[FORCED].append(model.continuation(sound, mode="resynthesize", seed=seed + i))
    return found


def hear(clips: Sequence[Clip], sounds: Mapping[str, Sequence[Array]], listen: Recognizer) -> Heard:
    """Recognize every sound of every clip.

    Raises:
        InputError: the recognizer fails.
    """
    heard = {system: [recognized(listen, sound) for sound in each] for system, each in sounds.items()}
    return Heard([clip.words for clip in clips], heard, [len(clip.sound) / RATE for clip in clips])


def write_words(
    section: Section, name: str, found: Heard, meter: str, *, narrow: Heard | None = None, seed: int = 0
) -> None:
    """Add the table and the figures ``name: words`` to the section; ``narrow``: by one that knows these words alone."""
    systems = (SAID, CODED, FORCED, CHANCE) if len(found.said) > 1 else (SAID, CODED, FORCED)
    rates = {system: found.rate(system, seed) for system in systems}
    pace = {system: found.pace(system) for system in found.heard}
    total, known = sum(map(len, found.said)), len({word for said in found.said for word in said})
    figures = {"clips": len(found.said), "words": total, "error_rate": rates, "words_a_second": pace}
    columns = ["sound", "word error rate", "words heard a second"]
    rows: list[list[Cell]] = [[system, rate, pace.get(system)] for system, rate in rates.items()]
    if narrow is not None:
        few = {system: narrow.rate(system, seed) for system in systems}
        figures |= {"known_words": known, "error_rate_known": few}
        columns.append(f"word error rate, choosing among these {known} words")
        rows = [[*row, few[system]] for row, system in zip(rows, systems, strict=True)]
    title = f"{name}: words of {len(found.said)} clips ({sum(found.seconds):.0f} s, {total} words), heard by {meter}"
    section.table(title, columns, rows)
    section.figures[f"{name}: words"] = figures


def measure_words(
    section: Section,
    model: AudioLM,
    data: Held,
    words: Words,
    *,
    seconds: float,
    seed: int = 0,
    progress: Progress = quiet,
) -> None:
    """Word error rates of ``seconds`` of the corpus, or else of the spare one; a note where neither has a text.

    Raises:
        InputError: the recognizer fails.
    """
    name, clips = data.name, told(data, words.texts, seconds, seed)
    if not clips and words.spare is not None:
        try:
            spare, texts = words.spare()
        except InputError as error:
            section.notes.append(f"{data.name}: no clip's text is known, and none could be spoken: {error}")
            return
        name, clips = f"{data.name}, in the words of {spare.name}", told(spare, texts, seconds, seed)
        section.notes.append(f"{data.name}: no clip's text is known, so words are of {spare.name}; give --manifest.")
    if not clips:
        section.notes.append(f"{data.name}: no text of a clip of 2 to 12 s is known, so there is no word error rate.")
        return
    if len(clips) < FEWEST:
        section.notes.append(
            f"{name}: {len(clips)} clips are too few for the interval of a word error rate to say much."
        )
    sounds = sounds_of(model, clips, seed=seed, progress=progress)
    narrow = words.narrow and words.narrow(word for clip in clips for word in clip.words)
    easy = hear(clips, sounds, narrow) if narrow else None
    write_words(section, name, hear(clips, sounds, words.listen), words.meter, narrow=easy, seed=seed)


def write_pace(section: Section, name: str, sounds: Mapping[str, Sequence[Array]], words: Words) -> None:
    """Add how many words a second the recognizer hears in sounds by system; there is no text to hold them against."""
    pace = {
        system: estimate([len(recognized(words.listen, sound)) / (len(sound) / RATE) for sound in each])
        for system, each in sounds.items()
    }
    title = f"{name}: words a second that {words.meter} hears in what follows the prompt"
    section.table(title, list(pace), [list(pace.values())])
    section.figures[f"{name}: words heard a second"] = pace
