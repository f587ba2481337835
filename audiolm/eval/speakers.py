"""Whose voice it is: speaker embeddings by resemblyzer (GE2E, Wan et al. 2018, arXiv 1710.10467).

resemblyzer comes with the extra ``eval``.
"""

import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.clips import QUIET_DB, enrolment, level_db, voices
from audiolm.eval.need import need
from audiolm.train.data import RATE, Corpus
from audiolm.train.shards import Array

SHORTEST = 0.5  # seconds of speech; a voice cannot be told by less


@cache
def _encoder() -> Any:
    library = need("resemblyzer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about how the library loads its own weights
        return library.VoiceEncoder("cpu", verbose=False)


def embed(sound: Array) -> Array | None:
    """The voice of float32 ``[samples]`` at 16 kHz as a unit vector ``[256]``; None for too little speech."""
    if level_db(sound) < QUIET_DB:
        return None
    speech = need("resemblyzer").preprocess_wav(np.asarray(sound, np.float32), source_sr=RATE)
    if len(speech) < SHORTEST * RATE:
        return None
    return np.asarray(_encoder().embed_utterance(speech), np.float64)


def similarity(a: Array | None, b: Array | None) -> float:
    """Cosine of two embeddings; 0 where one could not be told."""
    return 0.0 if a is None or b is None else float(a @ b)


def nearest(voice: Array | None, known: Mapping[str, Array]) -> str | None:
    """The known speaker whose embedding is nearest, None for no voice."""
    return None if voice is None else max(known, key=lambda who: similarity(voice, known[who]))


def enrolled(corpus: Corpus) -> dict[str, Array]:
    """Every speaker's embedding, of the end of what there is of the voice, which prompts do not use.

    Raises:
        InputError: fewer than two speakers can be told.
    """
    embedded = {who: embed(enrolment(voice)[1]) for who, voice in voices(corpus).items()}
    known = {who: voice for who, voice in embedded.items() if voice is not None}
    if len(known) < 2:
        raise InputError(f"{len(known)} of {len(embedded)} speakers can be told; the nearest takes at least two")
    return known
