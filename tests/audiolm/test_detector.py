"""The detector: calibration, windows of a stream, its file."""

import numpy as np
import pytest
import torch

from audiolm.detector import HOP, RATE, WINDOW, Detector, DetectorNet, Platt, fit_platt
from audiolm.errors import BundleError, InputError

# A standard normal score of either class, 2 apart: the log odds are 2 x.
SCORES = np.random.default_rng(0).normal(np.repeat([1.0, -1.0], 4000), 1.0)
LABELS = [True] * 4000 + [False] * 4000


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(DetectorNet(), Platt(2.0, 0.5), Platt(3.0, -0.5), {"bundle": "none"})


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(int(seconds * RATE)) * level).astype(np.float32)


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (0.2, 1.0), (5.0, -3.0)])
def test_a_known_miscalibration_is_corrected(scale, bias):
    found = fit_platt(list(scale * SCORES + bias), LABELS)
    right = [1 / (1 + np.exp(-2 * x)) for x in (-2.0, -0.5, 0.0, 1.0)]
    said = [found.probability(scale * x + bias) for x in (-2.0, -0.5, 0.0, 1.0)]
    np.testing.assert_allclose(said, right, atol=0.03)


def test_separable_scores_give_a_finite_calibration():
    found = fit_platt([1.0, 2.0, -1.0, -2.0], [True, True, False, False])
    assert 0 < found.scale < 100
    assert found.probability(1.5) > 0.5 > found.probability(-1.5)


def test_a_calibration_of_one_side_is_refused():
    with pytest.raises(InputError, match="both sides"):
        fit_platt([1.0], [True])


@pytest.mark.parametrize("size", [50, 640, 12345, 200000])
def test_any_chunking_gives_the_windows_of_the_whole(detector, size):
    sound = noise(6.3)
    whole = detector.listen(sound).windows
    state = detector.init_state()
    streamed = [w for at in range(0, len(sound), size) for w in detector.step(sound[at : at + size], state)]
    assert streamed == whole
    assert [w.start for w in whole] == [0, HOP, 2 * HOP, 3 * HOP]
    assert all(w.end - w.start == WINDOW for w in whole)


def test_the_level_is_no_cue(detector):
    loud, soft = (detector.listen(noise(3, level=level)).logit for level in (0.3, 0.01))
    assert loud == pytest.approx(soft, abs=1e-3)


def test_silence_is_not_judged(detector):
    sound = np.concatenate([noise(3), np.zeros(4 * RATE, np.float32)])
    verdict = detector.listen(sound)
    assert verdict.windows[-1].probability is None
    assert verdict.probability is not None
    assert detector.listen(np.zeros(3 * RATE, np.float32)).probability is None


def test_what_is_not_a_number_does_not_leak(detector):
    sound = noise(5)
    state = detector.init_state()
    first = sound.copy()
    first[:100] = np.nan
    windows = detector.step(first, state)
    assert all(np.isfinite(w.logit) for w in windows)
    assert windows[1:] == detector.listen(sound).windows[1:]


def test_short_sounds_are_one_window_or_refused(detector):
    assert len(detector.listen(noise(1.2)).windows) == 1
    with pytest.raises(InputError, match="at least 1 s"):
        detector.listen(noise(0.9))
    with pytest.raises(InputError, match="float32"):
        detector.step(np.zeros(10), detector.init_state())


def test_the_file_gives_the_detector_back(detector, tmp_path):
    again = Detector.load(detector.save(tmp_path / "detector.safetensors"))
    assert (again.by_window, again.by_file, again.facts) == (detector.by_window, detector.by_file, detector.facts)
    assert again.listen(noise(3)).logit == pytest.approx(detector.listen(noise(3)).logit, abs=0.02)  # stored as fp16
    assert (tmp_path / "detector.safetensors").stat().st_size < 1 << 20


def test_a_damaged_file_is_told(detector, tmp_path):
    path = detector.save(tmp_path / "detector.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BundleError, match="no detector"):
        Detector.load(path)
    with pytest.raises(BundleError, match="not there"):
        Detector.load(tmp_path / "nothing.safetensors")


def test_a_bundle_without_a_detector_says_how_to_make_one(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BundleError, match="audiolm train detector"):
        Detector.of(tmp_path)
