"""Pictures over time and over bit rate: small files, of what a section holds."""

import pytest

from audiolm.eval.continuation import BARE, MODEL
from audiolm.eval.plots import drift_plot
from audiolm.eval.stats import NOTHING, Estimate
from audiolm.eval.time_plots import families, hierarchy_plot, rate_plot

pytest.importorskip("matplotlib")
NONE = Estimate(NOTHING, NOTHING, NOTHING, 0)


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 300_000


def at(value):
    return Estimate(value, value - 0.1, value + 0.1, 4)


def test_a_row_a_corpus_even_where_measures_differ(tmp_path):
    systems = {MODEL: {"pitch": {"5": at(0.8), "10": at(0.7), "all": at(0.75)}, "nats": {"5": at(2), "10": NONE}}}
    music = {"systems": {**systems, BARE: {"pitch": {"5": at(0.5)}}}}
    speech = {"systems": {MODEL: {"nats": {"5": at(3.0)}}}}
    hierarchy_plot({"a": music, "b": speech}, {"pitch": "pitch", "nats": "nats"}, tmp_path / "h.png")
    assert is_png(tmp_path / "h.png")


def test_quality_over_bit_rate_has_a_line_a_codec(tmp_path):
    rows = [("6 levels", 3000), ("12 levels", 6000), ("Opus 12", 12500), ("Opus 6", 6100), ("encodec 6", 6000)]
    systems = {name: {"bit_rate": rate, "stft": at(1.0)} for name, rate in rows}
    assert {k: [row["bit_rate"] for row in v] for k, v in families(systems).items()} == {
        "this codec": [3000, 6000],
        "Opus": [6100, 12500],
        "encodec": [6000],
    }
    rate_plot({"x": systems}, {"pesq_wb": "PESQ", "stft": "STFT"}, tmp_path / "r.png")
    assert is_png(tmp_path / "r.png")


def test_an_hour_of_minutes_is_drawn(tmp_path):
    keys = ("semantic_entropy", "acoustic_entropy", "repeated", "loop", "silent", "level")
    made, data = ({key: [float(i % 5) for i in range(count)] for key in keys} for count in (60, 20))
    drift_plot({"x": {"made": made, "data": data}}, tmp_path / "d.png")
    assert is_png(tmp_path / "d.png")
