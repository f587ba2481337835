"""Libraries that only measurements use, imported when they are used."""

import warnings
from importlib import import_module
from typing import Any

from audiolm.errors import InputError


def need(module: str) -> Any:
    """Import ``module``, which the extra ``eval`` brings.

    Raises:
        InputError: it is not installed; the extra is named.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what others deprecate among themselves is no news here
            return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise InputError(
            f"this measure uses {name}, which cannot be imported ({error}); "
            "install the extra: pip install 'audiolm-streamer[eval]'",
            module=module,
        ) from error
