"""What every training run shares: a clock, a log, a schedule, the optimizer's step, and a state to resume from.

It knows nothing of what is trained. A recipe is a loop inside a :class:`Run`::

    with Run(out, "codec", minutes, settings=settings_of(recipe, config)) as run:
        learner = Learner(run, model.parameters(), rate, betas=(0.9, 0.99))
        run.resume({"model": model, "learner": learner, "rng": rng}, export=write_weights)
        for _ in run:
            loss = model(run.share(next(batches))).mean()
            learner.step(loss, {"loss": float(loss.detach())})

Run again, the same program goes on where it was, to the same numbers on the same machine. Several processes
(``torchrun``) run the same code: see :mod:`audiolm.train.device`.
"""

from audiolm.train.average import AverageWeights
from audiolm.train.checkpoint import (
    Part,
    Resumable,
    load_weights,
    read_tensors,
    save_tensors,
    save_weights,
    settings_of,
)
from audiolm.train.device import Compute
from audiolm.train.faults import StoppedError, TrainingError
from audiolm.train.learner import Learner, cosine
from audiolm.train.run import Run

__all__ = [
    "AverageWeights",
    "Compute",
    "Learner",
    "Part",
    "Resumable",
    "Run",
    "StoppedError",
    "TrainingError",
    "cosine",
    "load_weights",
    "read_tensors",
    "save_tensors",
    "save_weights",
    "settings_of",
]
