"""AudioLM, live: sound in, its continuation out, tick by tick. See :class:`AudioLM`."""

from audiolm.errors import AudioLMError, BundleError, ConfigError, EngineError, InputError
from audiolm.model import AudioLM

__version__ = "0.1.0"
__all__ = ["AudioLM", "AudioLMError", "BundleError", "ConfigError", "EngineError", "InputError", "__version__"]
