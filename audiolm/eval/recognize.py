"""Words of a sound by a recognizer, and their errors against a text. Knows nothing of models.

The built-in recognizer is pocketsphinx with the English model that comes inside it, so nothing is downloaded. Any other
is a function ``f(sound, rate) -> text`` (float32 ``[samples]``, 16000), named as ``module:function`` or by an entry
point of the group ``audiolm.recognizers``.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from audiolm.errors import InputError
from audiolm.eval.stats import NOTHING, RESAMPLES, Estimate
from audiolm.train.data import RATE
from audiolm.train.shards import Array

GROUP, BUILT_IN = "audiolm.recognizers", "pocketsphinx"
# Without the second pass and with bounds on what is kept open a frame: on babble, where nothing is likely, the defaults
# take ten times as long, and on 16 s of clean speech they erred as often (both 0.20).
FAST = {"fwdflat": False, "maxhmmpf": 1500, "maxwpf": 10}
Recognizer = Callable[[Array, int], str]


def pocketsphinx(words: Iterable[str] = ()) -> Recognizer:
    """The built-in recognizer; with ``words`` one that knows no others and finds them all alike likely.

    Raises:
        InputError: pocketsphinx is not installed.
    """
    try:
        from pocketsphinx import Decoder
    except ImportError as error:
        raise InputError(
            "words are recognized by pocketsphinx, which is not installed; install it with `pip install pocketsphinx`, "
            "or give --recognizer module:function"
        ) from error
    known = sorted(set(words))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "words.lm"
        path.write_text(_alike(known), encoding="utf8")
        model = {"lm": str(path)} if known else {}
        decoder: Any = Decoder(loglevel="FATAL", **FAST, **model)

    def hear(sound: Array, rate: int) -> str:
        if rate != RATE:
            raise InputError(f"pocketsphinx hears at {RATE} Hz; got {rate} Hz", rate=rate)
        decoder.start_utt()
        decoder.process_raw(np.clip(np.round(sound * 32768.0), -32768, 32767).astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found else ""

    return hear


def _alike(words: Sequence[str]) -> str:
    """A language model in ARPA's format: one word after the other, each as likely as another."""
    each = -np.log10(len(words) + 1)
    rows = ["-99 <s> 0", *(f"{each:.4f} {word} 0" for word in ("</s>", *words))]
    return "\n".join(["\\data\\", f"ngram 1={len(rows)}", "", "\\1-grams:", *rows, "", "\\end\\", ""])


def recognizer(name: str) -> Recognizer:
    """``pocketsphinx``, ``module:function``, or the name of an entry point of the group ``audiolm.recognizers``.

    Raises:
        InputError: there is none of that name, or it cannot be imported or called.
    """
    if name == BUILT_IN:
        return pocketsphinx()
    found = _imported(name) if ":" in name else _plugged(name)
    if not callable(found):
        raise InputError(f"the recognizer {name} is a {type(found).__name__}; expected a function f(sound, rate)")
    return found  # type: ignore[no-any-return]


def _imported(name: str) -> Any:
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"the recognizer {name} cannot be imported ({error}); give --recognizer module:function, with the module's "
            "folder on PYTHONPATH",
            recognizer=name,
        ) from error


def _plugged(name: str) -> Any:
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        names = ", ".join([BUILT_IN, *sorted(known)])
        raise InputError(f"unknown recognizer {name!r}; there are {names}, or give module:function", recognizer=name)
    try:
        return known[name].load()
    except (ImportError, AttributeError) as error:
        raise InputError(f"the recognizer {name} ({known[name].value}) cannot be imported: {error}") from error


def words_of(text: str) -> list[str]:
    """The words of an English text in lower case: letters and apostrophes, all else is a gap."""
    return [word for word in (each.strip("'") for each in re.findall(r"[a-z']+", text.lower())) if word]


def recognized(listen: Recognizer, sound: Array) -> list[str]:
    """The words that a recognizer hears in float32 ``[samples]`` at 16 kHz.

    Raises:
        InputError: the recognizer fails, or returns something other than text.
    """
    try:
        text = listen(np.ascontiguousarray(sound, np.float32), RATE)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"the recognizer failed on {len(sound) / RATE:.1f} s of sound: {error!r}") from error
    if not isinstance(text, str):
        raise InputError(f"the recognizer returned a {type(text).__name__}; expected the text that was heard")
    return words_of(text)


def edits(said: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest insertions, deletions and substitutions of words between two texts (Levenshtein 1966)."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        before, row = row, [i]
        for j, other in enumerate(heard, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (word != other)))
    return row[-1]


def error_rate(errors: Sequence[int], words: Sequence[int], seed: int = 0) -> Estimate:
    """Word error rate, errors over words of all clips together, and its 95 % interval by bootstrap over clips.

    It exceeds 1 where more words are heard than said. Clips without a word are left out.
    """
    both = np.array([(e, n) for e, n in zip(errors, words, strict=True) if n], np.float64)
    if not len(both):
        return Estimate(NOTHING, NOTHING, NOTHING, 0)
    picks = np.random.default_rng(seed).integers(len(both), size=(RESAMPLES, len(both)))
    wrong, all_words = both[picks].sum(1).T
    low, high = np.percentile(wrong / all_words, [2.5, 97.5])
    return Estimate(float(both[:, 0].sum() / both[:, 1].sum()), float(low), float(high), len(both))
