"""Puts this folder on the path, so that the tests share `contract` and `sounds`, and keeps Hypothesis calm."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("audiolm", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.load_profile("audiolm")


@pytest.fixture(autouse=True)
def denormals_afterwards():
    """A stepped engine flushes denormals in its thread, on which Hypothesis' floats rightly insist: give them back."""
    yield
    engine = sys.modules.get("audiolm.engine")
    if engine is not None and getattr(engine._thread, "ready", False):
        engine.torch.set_flush_denormal(False)
        engine._thread.ready = False
