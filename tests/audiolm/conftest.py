"""Puts this folder on the path, so that the tests share `contract` and `sounds`, and keeps Hypothesis calm."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("audiolm", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.load_profile("audiolm")
