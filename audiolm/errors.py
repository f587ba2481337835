"""The errors that `audiolm` raises on purpose.

Each one says what came, what was expected and what to do, and carries the values it speaks of as attributes:

    raise InputError("empty file", path="a.wav", frames=0)   ->   error.path, error.frames, error.data

This module knows nothing else of the package, so that every other module may import it.
"""

from __future__ import annotations

__all__ = ["AudioLMError", "BundleError", "ConfigError", "EngineError", "InputError"]


class AudioLMError(Exception):
    """Base of all errors raised on purpose; `message` is the text, `data` the values it speaks of.

    `exit_code` is what a command line exits with: 2 where what came from outside cannot be used.
    """

    exit_code = 2

    def __init__(self, message: str, **data: object) -> None:
        """Keep `message` and `data`; each key of `data` is readable as an attribute too."""
        super().__init__(message)
        self.message = message
        self.data: dict[str, object] = data

    def __getattr__(self, name: str) -> object:
        """Look `name` up in `data`; called only where no ordinary attribute has this name."""
        data = self.__dict__.get("data", {})
        if name in data:
            return data[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}; its data is {sorted(data)}")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the data, so that an error crosses a process boundary whole."""
        return (_rebuild, (type(self), self.message, self.data))


class InputError(AudioLMError, ValueError):
    """Sound, tokens or arguments that came from outside cannot be used."""


class BundleError(AudioLMError, ValueError):
    """A bundle is missing, incomplete, altered or does not fit."""


class ConfigError(AudioLMError, ValueError):
    """Settings contradict each other or are out of range."""


class EngineError(AudioLMError, RuntimeError):
    """The engine was used out of order: no free slot, a slot that is not open, a part that is not loaded."""

    exit_code = 1


def _rebuild(kind: type[AudioLMError], message: str, data: dict[str, object]) -> AudioLMError:
    return kind(message, **data)
