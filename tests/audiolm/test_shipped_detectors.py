"""The detectors that ship: small, of their bundle, and silent about a recording that nobody made."""

import pytest

from audiolm.bundle import find, load_bundle, shipped
from audiolm.detector import FILE, Detector


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_bundle_has_its_detector(name):
    detector = Detector.of(name)
    assert (find(name) / FILE).stat().st_size <= 1 << 20
    assert detector.facts["bundle"] == name
    assert load_bundle(name).fingerprint.startswith(detector.facts["fingerprint"])
    assert detector.facts["held_out_accuracy"] > 0.9
    assert detector.by_window.scale > 0
