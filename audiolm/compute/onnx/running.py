"""Running a graph without copies: inputs and outputs are numpy arrays that are bound once and filled in place.

It knows nothing of models. ONNX Runtime is imported when the first graph is loaded.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audiolm.errors import ConfigError

Arrays = dict[str, np.ndarray[Any, Any]]


def runtime() -> Any:
    """The ONNX Runtime.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            "this engine needs ONNX Runtime, which is not installed: pip install 'audiolm-streamer[onnx]', "
            "or take engine: torch"
        ) from error
    return onnxruntime


def session(model: bytes | Path) -> Any:
    """A graph made ready: one thread, no denormals, no noise on standard error.

    From a file it takes half the memory: bytes are kept for as long as the session is.
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = str(model) if isinstance(model, Path) else model
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class Bound:
    """A graph whose ends are arrays: write into :attr:`inputs`, :meth:`run`, read :attr:`outputs`.

    Args:
        loaded: of :func:`session`.
        inputs: arrays that are read where they lie; those that are not given are made.
        sizes: what the named dimensions are.
    """

    def __init__(self, loaded: Any, inputs: Mapping[str, np.ndarray[Any, Any]], sizes: Mapping[str, int]) -> None:
        self._session, self._binding = loaded, loaded.io_binding()
        self.inputs: Arrays = {end.name: inputs.get(end.name, _empty(end, sizes)) for end in loaded.get_inputs()}
        self.outputs: Arrays = {end.name: _empty(end, sizes) for end in loaded.get_outputs()}
        value = runtime().OrtValue.ortvalue_from_numpy
        self._values = [value(array) for array in (*self.inputs.values(), *self.outputs.values())]
        names = (*self.inputs, *self.outputs)
        for i, (name, held) in enumerate(zip(names, self._values, strict=True)):
            bind = self._binding.bind_ortvalue_input if i < len(self.inputs) else self._binding.bind_ortvalue_output
            bind(name, held)

    def run(self) -> Arrays:
        """One run."""
        self._session.run_with_iobinding(self._binding)
        return self.outputs


TYPES = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


def _empty(end: Any, sizes: Mapping[str, int]) -> np.ndarray[Any, Any]:
    shape = tuple(sizes[size] if isinstance(size, str) else size for size in end.shape)
    return np.zeros(shape, TYPES[end.type])
