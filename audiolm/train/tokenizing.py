"""Tokenizing a whole corpus so that an interruption costs minutes: in parts, which are files, and joined at the end."""

import logging
import shutil
import time
from itertools import pairwise
from pathlib import Path

from audiolm.parts import Parts
from audiolm.train.data import RATE, TICK, Corpus
from audiolm.train.journal import duration
from audiolm.train.loop import save_tensors
from audiolm.train.tokens import Streams, Tokens, tokenize

PART_MINUTES = 20.0
EVERY = 20.0  # seconds between lines of the log
logger = logging.getLogger("audiolm.train")


def tokenize_corpus(
    parts: Parts, corpus: Corpus, out: Path, *, fresh: bool = False, part_minutes: float = PART_MINUTES
) -> Tokens:
    """Write the tokens of all streams of ``corpus`` to the file ``out``; parts that are there are not made again.

    ``fresh`` when parts that are there are of other weights or sound.

    Raises:
        InputError: every stream is shorter than a second.
        TrainingError: a file cannot be written; the parts before it are kept.
    """
    folder = out.with_name(f"{out.stem}.parts")
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    sounds = Streams(corpus)
    shortest = (25 + parts.tokenizer.config.lookahead) * TICK  # shorter ones have no tokens: all of them is an error
    usable = [i for i, length in enumerate(sounds.lengths) if length // TICK * TICK >= shortest]
    groups = _groups([sounds.lengths[i] for i in usable], int(part_minutes * 60 * RATE))
    begin, said, done = time.monotonic(), time.monotonic(), 0
    made = []
    for number, (first, last) in enumerate(groups):
        path = folder / f"{number:04d}.safetensors"
        if path.is_file():
            made.append(Tokens.open(path))
            continue
        made.append(tokenize(parts.codec, parts.tokenizer, [sounds[i] for i in usable[first:last] or [0]], path))
        done += 1
        if time.monotonic() - said > EVERY:
            said = time.monotonic()
            left = (said - begin) / done * (len(groups) - number - 1)
            logger.info("tokenize: part %d of %d, %s left", number + 1, len(groups), duration(left))
    whole = Tokens.join(made)
    save_tensors(out, {"acoustic": whole.acoustic, "semantic": whole.semantic, "index": whole.index})
    shutil.rmtree(folder, ignore_errors=True)
    return whole


def _groups(lengths: list[int], most: int) -> list[tuple[int, int]]:
    """Neighbours whose lengths add up to ``most`` or just above, as ``(first, last + 1)``; at least one group."""
    bounds, total = [0], 0
    for i, length in enumerate(lengths):
        total += length
        if total >= most:
            bounds.append(i + 1)
            total = 0
    if bounds[-1] != len(lengths) or len(bounds) == 1:
        bounds.append(len(lengths))
    return list(pairwise(bounds))
