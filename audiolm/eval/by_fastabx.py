"""The same ABX error by fastabx (bootphon, arXiv 2505.02692), the library of those who made the measure.

It asks for Python 3.12 and is no part of the extra ``eval``. Ours stands where it cannot be; on the same items they
differ by rounding alone, and for tokens a little more, since of two paths of equal cost one may be longer.
It draws its own items where there are more than 10 of a kind, and takes every case.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch

from audiolm.errors import InputError
from audiolm.eval.abx import MOST, MOST_SPEAKERS, Item

Array = np.ndarray[Any, Any]
BY = {"within": (("prev-phone", "next-phone", "speaker"), ()), "across": (("prev-phone", "next-phone"), ("speaker",))}


def fast_errors(
    items: Sequence[Item],
    frames: Mapping[int, Array],
    *,
    most: int | None = MOST,
    speakers: int | None = MOST_SPEAKERS,
    seed: int = 0,
) -> dict[str, float]:
    """Errors ``within`` and ``across`` speakers, 0 to 1, of the items that ``frames`` has, by their numbers.

    Frames are float ``[n, dim]``, or tokens, int ``[n]``.

    Raises:
        InputError: fastabx is not installed.
    """
    fastabx, accessor, polars = _libraries()
    numbers = sorted(frames)
    rows = [np.asarray(frames[i]).reshape(len(frames[i]), -1) for i in numbers]
    labels = polars.DataFrame({
        "#phone": [items[i].phone for i in numbers],
        "prev-phone": [items[i].context[0] for i in numbers],
        "next-phone": [items[i].context[1] for i in numbers],
        "speaker": [items[i].speaker for i in numbers],
    })  # fmt: skip
    ends = np.cumsum([len(row) for row in rows]).tolist()
    places = {k: (end - len(row), end) for k, (end, row) in enumerate(zip(ends, rows, strict=True))}
    distance = "identical" if np.issubdtype(rows[0].dtype, np.integer) else "angular"
    found = {}
    for side, (by, across) in BY.items():
        data = accessor.InMemoryAccessor(places, torch.from_numpy(np.concatenate(rows)), torch.device("cpu"))
        subsampler = fastabx.Subsampler(most, speakers if across else None, seed)
        dataset = fastabx.Dataset(labels=labels, accessor=data)
        task = fastabx.Task(dataset, on="#phone", by=list(by), across=list(across), subsampler=subsampler)
        score = fastabx.Score(task, distance, progress=False)
        found[side] = float(score.collapse(levels=[("next-phone", "prev-phone"), "speaker"]))
    return found


def _libraries() -> tuple[Any, Any, Any]:
    try:
        found = [import_module(name) for name in ("fastabx", "fastabx.accessor", "polars")]
    except (ImportError, SyntaxError) as error:
        raise InputError(
            f"--fastabx needs fastabx, which cannot be imported ({error}); install it (pip install fastabx, Python "
            "3.12 or later) or leave it out: audiolm counts the same"
        ) from error
    return found[0], found[1], found[2]
