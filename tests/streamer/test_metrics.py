from streamer.metrics import Metrics, Ring


def test_ring_keeps_the_last_and_counts_all():
    ring = Ring()
    for i in range(5000):
        ring.add(i / 1000)
    found = ring.percentiles()
    assert len(ring.values) == 2048
    assert found["count"] == 5000
    assert found["max"] == 4999
    assert 2952 < found["p50"] < found["p95"] < found["p99"] < 4999


def test_empty_metrics():
    assert Ring().percentiles()["p50"] == 0
    assert (Metrics().rtf, Metrics().first_sample_ms, Metrics().snapshot()["dropped"]) == (None, None, 0)


def test_marks_counters_and_first_sample():
    metrics = Metrics()
    metrics.mark("prompt_end")
    before = metrics.marks["prompt_end"]
    metrics.mark("prompt_end")
    assert metrics.marks["prompt_end"] == before
    metrics.mark("first_sample")
    assert metrics.first_sample_ms >= 0
    metrics.count("door.nan", 3)
    metrics.count("door.nan")
    assert metrics.snapshot()["counters"] == {"door.nan": 4}


def test_ticks_are_the_time_between_frames_of_one_sort():
    """What is heard is measured until something is generated; then only that."""
    metrics = Metrics()
    for _ in range(3):
        metrics.sound(640, generated=False)
    assert metrics.ticks.count == 2
    for _ in range(5):
        metrics.sound(640, generated=True)
    assert metrics.ticks.count == 4
    assert (metrics.audio_samples, metrics.generated_samples) == (8 * 640, 5 * 640)
    found = metrics.snapshot()
    assert found["tick_ms"]["p99"] >= found["tick_ms"]["p50"] > 0
    assert found["generated_seconds"] == 0.2


def test_without_a_prompt_the_start_is_its_end():
    metrics = Metrics()
    metrics.mark("start")
    metrics.sound(640, generated=True)
    assert metrics.first_sample_ms >= 0


def test_gauges_say_what_is_true_now_and_latencies_what_it_took():
    metrics = Metrics()
    metrics.gauge("turns.state", "listening")
    metrics.gauge("turns.state", "continuing")
    metrics.latency("decision_to_sound", 0.1)
    metrics.latency("decision_to_sound", 0.3)
    found = metrics.snapshot()
    assert found["gauges"] == {"turns.state": "continuing"}
    assert found["latency_ms"]["decision_to_sound"]["count"] == 2
    assert found["latency_ms"]["decision_to_sound"]["max"] == 300
