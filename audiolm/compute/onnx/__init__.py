"""Parts of a model as ONNX graphs, run by ONNX Runtime: in float32, or with matrices in int8."""
