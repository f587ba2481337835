"""A recorded token log gives the same sound again, from whichever edge it was taken."""

import graphs
import numpy as np
import pytest
from graphs import CONTINUE

REPLAY = {
    "fine": "  - log -> decoder -> output\n",
    "coarse": "  - log -> fine -> decoder -> output\n",
    "semantic": "  - log -> coarse -> fine -> decoder -> output\n",
}


def replayed(play, log, kind, *overrides, mode="dream", **options):
    models = {"fine": "", "coarse": "  fine: fine\n", "semantic": "  coarse: coarse\n  fine: fine\n"}[kind]
    text = f"""
nodes:
  log: {{type: replay, path: '{log}', kinds: [{kind}]}}
{models}  decoder: decoder
  output: {{type: file_out}}
edges:
{REPLAY[kind]}"""
    return play(text, f"session.mode={mode}", "session.seed=4", *overrides, logged=(), **options)


@pytest.mark.parametrize("pattern", ["depth", "flat"])
@pytest.mark.parametrize("kind", REPLAY)
def test_a_dream_from_its_tokens(play, bundles, tmp_path, kind, pattern):
    """The noise is counted by position, so the stages behind the log sample what they sampled then."""
    one = play("dream", "session.seconds=0.6", "session.seed=4", bundle=bundles[pattern])
    log = next(tmp_path.glob(f"*-{kind}-main.log"))
    again = replayed(play, log, kind, "session.seconds=0.6", bundle=bundles[pattern])
    np.testing.assert_array_equal(again.int16, one.int16)
    assert again.sha256 == one.sha256


@pytest.mark.parametrize("packed", [True, False])
def test_a_continuation_from_its_stacks(play, prompt, tmp_path, packed):
    """Heard and made, marked as they were."""
    given = ["session.seconds=0.4", f"packed={str(packed).lower()}"]
    one = play(CONTINUE, *given, "session.seed=4", f"nodes.input.path={prompt}")
    log = next(tmp_path.glob("*-fine-main.log"))
    again = replayed(play, log, "fine", *given, mode="continue")
    assert again.sha256 == one.sha256
    assert again.report["generated_seconds"] == one.report["generated_seconds"] == 0.4
    alone = replayed(play, log, "fine", "session.seconds=0.4", "session.include_prompt=false", mode="continue")
    np.testing.assert_array_equal(alone.int16, one.int16[-10 * graphs.TICK :])
