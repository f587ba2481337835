"""The sounds that a report plays: what was generated carries mark and watermark, what was recorded does not."""

import numpy as np
from heard import CHORDS, RATE, notes, speech

from audiolm.eval.clips import Prompt
from audiolm.eval.continuation import BARE, CODEC, MODEL, TRUTH, Continued
from audiolm.eval.examples import versions_of, write_sounds
from audiolm.io import MARK, read_audio, read_metadata
from audiolm.watermark import find


def continued(seconds=8):
    prompt, truth, made, bare = (notes(CHORDS[i], seconds, seed=i) for i in range(4))
    coded = np.concatenate((prompt, truth))
    return Continued(Prompt(prompt, truth, "piece"), {MODEL: made, BARE: bare, TRUTH: truth, CODEC: truth}, coded)


def test_a_prompt_stays_and_what_was_made_is_marked():
    each = continued()
    for what, sound, generated in versions_of(each):
        start, rest = sound[: 8 * RATE], sound[8 * RATE :]
        np.testing.assert_array_equal(start, each.prompt.sound)
        assert find(rest).present == generated
        assert generated == (what in (MODEL, BARE))


def test_the_watermark_is_in_the_files_too(tmp_path):
    sound = speech(10, 1)
    each = Continued(Prompt(sound[: 2 * RATE], sound, "one"), {MODEL: sound}, np.concatenate((sound, sound)))
    for said in write_sounds([("voices", each)], tmp_path):
        path = tmp_path / said["file"]
        assert read_metadata(path).mark == (MARK if said["generated"] else "")
        assert find(read_audio(path)).present == said["generated"]
        assert said["of"] == "voices, prompt 1 (one, 2 s)"
