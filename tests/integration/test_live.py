"""Live: the loop beats on while the model works, and sound comes out as the clock ticks."""

import asyncio
import time

import graphs
import pytest
from graphs import CONTINUE, TICK

FROM_MEMORY = graphs.text_of(CONTINUE).replace("{type: file}", "pieces")
PACED = graphs.text_of(CONTINUE).replace("  - clock -> semantic ", "  - {from: clock, to: semantic, capacity: 1} ")


class Heartbeat:
    """Counts how long the loop was held, at worst."""

    async def __aenter__(self):
        self.gaps = [0.0]
        self.task = asyncio.create_task(self.beat(), name="heartbeat")
        return self

    async def __aexit__(self, *exc):
        self.task.cancel()

    async def beat(self):
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            self.gaps.append(time.perf_counter() - before - 0.005)

    @property
    def worst(self):
        return max(self.gaps)


@pytest.mark.parametrize("lane", ["codec", "own"])
async def test_the_loop_beats_on_while_the_model_and_a_slow_node_work(aplay, sound, lane):
    text = FROM_MEMORY.replace("  decoder: decoder", "  decoder: decoder\n  slow: {type: slow, seconds: 0.4}")
    text = text.replace("decoder -> output", "decoder -> slow -> output")
    text = text.replace("decoder]", "decoder, slow]" if lane == "codec" else "decoder]\n  own: [slow]")
    async with Heartbeat() as heart:
        given = [{"extra": {"sound": sound[: 2 * TICK]}}]
        results = await aplay(text, "session.seconds=0.08", sessions=given, logged=())
    assert len(results[0].int16) == 4 * TICK
    assert len(heart.gaps) > 50, "the steps of the slow node alone last 1.6 s"
    assert heart.worst < 0.25, "a step held the loop"


async def test_live_the_sound_comes_tick_by_tick(aplay, prompt):
    got = []
    text = PACED.replace("{type: file_out}", "keep").replace("output:", "speaker:").replace("output", "speaker")
    text = text.replace("nodes:\n", "nodes:\n  output: {type: file_out}\n").replace("-> speaker", "-> speaker, output")
    realtime = ["nodes.input.realtime=true", "nodes.clock.realtime=true", f"nodes.input.path={prompt}"]
    result = await aplay(
        text, *realtime, "session.prompt_seconds=0.4", "session.seconds=0.8",
        sessions=[{"extra": {"got": got}}], logged=(),
    )  # fmt: skip
    report = result[0].report
    start = got[0][0]
    heard = [at - start for at, frame in got if frame.heard and frame.payload]
    made = [at - start for at, frame in got if frame.generated]
    assert (len(heard), len(made)) == (10, 20)
    assert heard[-1] > 8 * 0.04, "the prompt came faster than a microphone gives it"
    assert made[-1] - made[0] > 15 * 0.04, "the continuation came at once"
    assert sum(at < made[0] + 0.02 for at in made) <= 4, "the first ticks came in a burst"
    assert 0 < report["first_sample_ms"] < 1000
    assert report["tick_ms"]["p50"] == pytest.approx(40, rel=0.5)
    assert report["dropped"] == 0


async def test_a_run_says_how_fast_it_was(aplay, prompt):
    result = await aplay(CONTINUE, f"nodes.input.path={prompt}", "session.seconds=0.4")
    report = result.report
    assert 0 < report["rtf"] < 20
    assert 0 < report["first_sample_ms"] < 2000
    assert report["audio_seconds"] == pytest.approx(27 * 0.04 + 0.4)
    assert report["generated_seconds"] == pytest.approx(0.4)
    assert {"acoustic", "semantic_tokens", "semantic", "coarse", "fine", "decoder"} <= set(report["nodes"])
    assert report["counters"]["door.ticks"] == 27
