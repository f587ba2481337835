"""How a training run ends badly; it knows nothing of runs."""

import signal

from audiolm.errors import AudioLMError


class TrainingError(AudioLMError, RuntimeError):
    """A run cannot go on; the last good checkpoint is intact."""

    exit_code = 1


class StoppedError(AudioLMError):
    """A signal ended a run early; its weights and its state were saved before this was raised."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message, number=int(number))
        self.exit_code = 128 + number
