"""A small writer of ONNX graphs: operations by name, weights of torch modules, two precisions of matrices.

The graphs are written operation by operation instead of traced from torch: fewer, larger operations run faster at batch
1, and the same file comes out whatever version of an exporter is there. It knows nothing of the model's parts.

int8 means 8 bit a weight with a scale for every 32 of them, and activations quantized by the kernel in blocks of 32 of
their own row (``MatMulNBits`` of ONNX Runtime): so rows of a batch never touch each other.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

Precision = Literal["fp32", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
BLOCK = 32  # weights that share a scale: the fastest size of 32, 128 and 256, and the finest
OPSET, CONTRIB, IR = 21, "com.microsoft", 10
FLOAT = 1  # as ONNX numbers its types
Shape = Sequence[int | str]


class Graph:
    """One graph in the making. Values are named by strings; operations give the names of what they make."""

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        self._nodes: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._weights: list[Any] = []
        self._count = 0

    # -- ends --

    def input(self, name: str, shape: Shape, dtype: type = np.float32) -> str:
        """Declare an input; named dimensions are free."""
        self._inputs.append(_described(name, shape, dtype))
        return name

    def output(self, name: str, value: str, shape: Shape, dtype: type = np.float32) -> None:
        """Give a value out under a name."""
        self._nodes.append(_helper().make_node("Identity", [value], [name]))
        self._outputs.append(_described(name, shape, dtype))

    # -- values --

    def constant(self, value: Any, dtype: type = np.float32) -> str:
        """A constant; equal ones are kept once."""
        made: np.ndarray[Any, Any] = np.asarray(value, dtype)
        key = (made.dtype.str, made.shape, made.tobytes())
        if key not in self._constants:
            self._constants[key] = self._weight(made)
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """A constant vector of int64."""
        return self.constant(values, np.int64)

    def _weight(self, array: np.ndarray[Any, Any]) -> str:
        from onnx import numpy_helper

        self._count += 1
        name = f"w{self._count}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    # -- operations --

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """One operation with one result."""
        return self.many(kind, *inputs, results=1, domain=domain, **attributes)[0]

    def many(self, kind: str, *inputs: str, results: int, domain: str = "", **attributes: Any) -> list[str]:
        """One operation with several results."""
        names = [f"v{self._count + i + 1}" for i in range(results)]
        self._count += results
        self._nodes.append(_helper().make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names

    def reshape(self, x: str, *shape: int) -> str:
        """``shape`` as in ONNX: 0 keeps a dimension, -1 is what is left."""
        return self.op("Reshape", x, self.ints(*shape))

    def split(self, x: str, *sizes: int, axis: int = -1) -> list[str]:
        """Pieces of the given sizes."""
        return self.many("Split", x, self.ints(*sizes), results=len(sizes), axis=axis)

    def linear(self, x: str, weight: Tensor, bias: Tensor | None = None, *, exact: bool = False) -> str:
        """``x [..., in] -> [..., out]`` by ``weight`` ``[out, in]``; ``exact`` keeps it in float32."""
        matrix = array(weight)
        if exact or self.precision == "fp32":
            y = self.op("MatMul", x, self._weight(matrix.T))
        else:
            codes, scales = quantized(matrix)
            y = self.op(
                "MatMulNBits", x, self._weight(codes), self._weight(scales), domain=CONTRIB,
                K=matrix.shape[1], N=matrix.shape[0], bits=8, block_size=BLOCK, accuracy_level=4,
            )  # fmt: skip
        return y if bias is None else self.op("Add", y, self._weight(array(bias)))

    def of(self, layer: nn.Linear, x: str, *, exact: bool = False) -> str:
        """A linear layer."""
        return self.linear(x, layer.weight, layer.bias, exact=exact)

    def norm(self, layer: nn.LayerNorm, x: str) -> str:
        """A layer norm over the last dimension."""
        scale, shift = self._weight(array(layer.weight)), self._weight(array(layer.bias))
        return self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=layer.eps)

    def gather(self, table: Tensor, index: str) -> str:
        """Rows of a table ``[n, width]``, kept in half the bytes where nothing is lost by it (bundles store fp16)."""
        rows = array(table)
        half = rows.astype(np.float16)
        if not np.array_equal(half, rows):
            return self.op("Gather", self._weight(rows), index, axis=0)
        return self.op("Cast", self.op("Gather", self._weight(half), index, axis=0), to=FLOAT)

    def weight(self, value: Tensor) -> str:
        """A tensor of the model as it is."""
        return self._weight(array(value))

    def choose(self, condition: str, then: Callable[[], str], otherwise: Callable[[], str]) -> str:
        """One of two values; only the operations of the one that is chosen are run."""
        branches = {"then_branch": self._branch(then), "else_branch": self._branch(otherwise)}
        return self.op("If", condition, **branches)

    def _branch(self, make: Callable[[], str]) -> Any:
        outside, self._nodes = self._nodes, []
        value = make()
        self._count += 1
        name = f"v{self._count}"
        nodes = [*self._nodes, _helper().make_node("Identity", [value], [name])]
        self._nodes = outside
        return _helper().make_graph(nodes, name, [], [_helper().make_empty_tensor_value_info(name)])

    # -- the whole --

    def model(self) -> bytes:
        """The serialized graph."""
        helper = _helper()
        graph = helper.make_graph(self._nodes, "audiolm", self._inputs, self._outputs, self._weights)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=IR).SerializeToString()
        return made


def quantized(matrix: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """``[out, in]`` as codes ``[out, blocks, 32]`` uint8 with zero at 128, and scales ``[out * blocks]``."""
    out, width = matrix.shape
    blocks = -(-width // BLOCK)
    padded = np.zeros((out, blocks * BLOCK), np.float32)
    padded[:, :width] = matrix
    pieces = padded.reshape(out, blocks, BLOCK)
    scales = np.maximum(np.abs(pieces).max(-1), 1e-12) / 127
    codes = np.rint(pieces / scales[..., None]).clip(-127, 127) + 128
    return codes.astype(np.uint8), scales.astype(np.float32).reshape(-1)


def array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor as a float32 array."""
    return tensor.detach().to(torch.float32).cpu().numpy()


def _helper() -> Any:
    from onnx import helper

    return helper


def _described(name: str, shape: Shape, dtype: type) -> Any:
    helper = _helper()
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))
