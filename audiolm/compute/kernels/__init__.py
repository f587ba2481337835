"""Triton kernels of the accelerator's engine. Imported only where Triton is (:mod:`audiolm.compute.fused`)."""
