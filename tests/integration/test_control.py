"""Control while a session runs: what changes does so at its place, to the bit, and nothing before it."""

import graphs
import numpy as np
import pytest
from graphs import CONTINUE, TICK

PROMPT = 27
AT = (PROMPT + 6) * TICK
EACH = "lanes={a: [acoustic], b: [semantic_tokens], c: [semantic], d: [coarse], e: [fine], f: [decoder]}"


@pytest.fixture
def go_on(play, prompt):
    def go(*overrides, before=None, **options):
        given = [f"nodes.input.path={prompt}", "session.seconds=0.8", "session.seed=5", *overrides]
        return play(CONTINUE, *given, before=before, **options)

    return go


def sending(**values):
    return lambda session: session.send("set", **values)


def first_difference(one, other, node):
    pairs = zip(one.tokens[node], other.tokens[node], strict=True)
    return next((a[0] for a, b in pairs if a != b), None)


@pytest.mark.parametrize("pattern", ["depth", "delay", "flat"])
def test_a_change_takes_effect_at_its_position_and_not_before(go_on, bundles, pattern):
    plain = go_on(bundle=bundles[pattern])
    changed = go_on(bundle=bundles[pattern], before=sending(position=AT, temperature=0.0))
    differs = np.flatnonzero(plain.int16 != changed.int16)
    assert AT <= differs[0] < AT + 4 * TICK
    assert len(differs) > 5 * TICK
    ahead = {"semantic": 2 if pattern != "delay" else 4}
    for node in ("semantic", "coarse", "fine"):
        assert first_difference(plain, changed, node) >= AT + ahead.get(node, 0) * TICK, node


@pytest.mark.parametrize("how", ["packed=true", EACH, "nodes.input.chunk_ms=3"])
def test_the_same_change_gives_the_same_sound(go_on, how):
    one = go_on(before=sending(position=AT, temperature=0.3, top_k=5))
    assert go_on(how, before=sending(position=AT, temperature=0.3, top_k=5)).sha256 == one.sha256


def test_one_stage_can_be_named(go_on):
    plain = go_on()
    changed = go_on(before=sending(position=AT, node="coarse", temperature=0.0))
    assert changed.tokens["semantic"] == plain.tokens["semantic"]
    assert first_difference(plain, changed, "coarse") >= AT


def test_changes_add_up_and_none_takes_one_back(go_on):
    def twice(session):
        session.send("set", position=AT, temperature=0.0)
        session.send("set", position=AT, top_k=3)

    def there_and_back(session):
        session.send("set", position=AT, temperature=0.0)
        session.send("set", position=AT, temperature=None)

    greedy = go_on(before=sending(position=AT, temperature=0.0))
    assert go_on(before=twice).sha256 == greedy.sha256, "greedy stays greedy"
    assert go_on(before=there_and_back).sha256 == go_on().sha256


@pytest.mark.parametrize(
    "values", [{"temperature": -1.0}, {"temperature": "hot"}, {"top_p": 0.0}, {"top_k": 1.5}, {"guidance": 3.0}]
)
def test_a_change_that_cannot_be_is_counted_and_the_stream_goes_on(go_on, values):
    plain = go_on()
    changed = go_on(before=sending(position=AT, **values))
    assert changed.sha256 == plain.sha256
    refused = {name: n for name, n in changed.report["counters"].items() if "controls" in name}
    assert refused == {f"{node}.refused_controls": 1 for node in ("semantic", "coarse", "fine")}


def test_guidance_where_the_graph_has_room_for_it(go_on):
    guided = go_on("nodes.coarse.guidance=2")
    plain = go_on()
    assert guided.sha256 != plain.sha256
    turned_off = go_on("nodes.coarse.guidance=2", before=sending(guidance=1.0, node="coarse"))
    np.testing.assert_array_equal(turned_off.tokens["semantic"][-1][2], plain.tokens["semantic"][-1][2])
    assert turned_off.sha256 == plain.sha256


async def test_a_late_change_is_counted_and_applies_at_once(aplay, sound):
    """Sent when ticks behind its place have sounded already."""
    text = graphs.text_of(CONTINUE).replace("{type: file}", "pieces").replace("{type: file_out}", "late_sender")
    text = text.replace("output:", "speaker:").replace("output", "speaker")
    text = text.replace("nodes:\n", "nodes:\n  output: {type: file_out}\n").replace("-> speaker", "-> speaker, output")
    extra = {"sound": sound, "at": AT, "got": []}

    def hand_over(session):
        extra["session"] = session
        session.info.extra["session"] = session

    given = {"sessions": [{"extra": extra}], "before": hand_over, "logged": ()}
    late = (await aplay(text, "session.seconds=4", **given))[0]
    counters = {name: n for name, n in late.report["counters"].items() if "controls" in name}
    assert counters == {f"{node}.late_controls": 1 for node in ("semantic", "coarse", "fine")}
