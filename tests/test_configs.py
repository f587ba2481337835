"""Every shipped config is checked, drawn and run, and gives what it says."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiolm import AudioLM

HERE = Path(__file__).parent
CONFIGS = sorted(HERE.parent.joinpath("configs").glob("*.yaml"), key=lambda path: path.name)
PROMPT, SECONDS = 0.64, 0.4
MODES = {
    "acoustic_only_file": "acoustic_only",
    "continue_file": "continue",
    "dream": "dream",
    "duplex": "reconstruct",
    "installation": "continue",
    "mic_continue": "continue",
    "pipe": "continue",
    "reconstruct_file": "reconstruct",
    "resynthesize_file": "resynthesize",
    "resynthesize_mic": "resynthesize",
}
# Live configs get files in place of their devices by --input and --output; tests/live has devices.
OPTIONS = {name: ["--set", "nodes.turns.detector=music"] for name in ("installation", "mic_continue")}  # a tone
# What plays in the pauses needs a clock and somebody to talk to.
ELSEWHERE = {
    "duet": "integration/test_turns.py",
    "page": "web/test_rooms.py",
    "page_reconstruct": "web/test_rooms.py",
}


@pytest.fixture
def run(streamer, prompt, tiny_bundle, tmp_path):
    """`run(name, *more)`: the samples, int16, that a config makes of the prompt."""

    def call(name, *more):
        raw = name == "pipe"
        source, output = Path(prompt), tmp_path / ("y.raw" if raw else "y.wav")
        if raw:
            source = tmp_path / "prompt.raw"
            source.write_bytes(soundfile.read(prompt, dtype="int16")[0].tobytes())
        options = ["--output", output, "--bundle", tiny_bundle, "--seed", "3", "--quiet"]
        options += [] if name == "dream" else ["--input", source]
        options += [] if MODES[name] in ("reconstruct", "resynthesize") else ["--seconds", SECONDS]
        options += ["--set", f"session.voice={prompt}"] if MODES[name] == "resynthesize" else []
        result = streamer("run", name, *options, *OPTIONS.get(name, ()), *more)
        assert result.code == 0, result
        return np.fromfile(output, "<i2") if raw else soundfile.read(output, dtype="int16")[0]

    return call


def test_all_of_them_are_here():
    assert [path.stem for path in CONFIGS] == sorted(MODES | ELSEWHERE)
    assert all((HERE / place).is_file() for place in ELSEWHERE.values())


@pytest.mark.parametrize("name", sorted(MODES))
def test_it_makes_sound_of_the_right_length(run, name):
    prompt = 0.0 if name in ("dream", "pipe") else PROMPT
    made = 0.0 if MODES[name] in ("reconstruct", "resynthesize") else SECONDS
    sound = run(name)
    assert len(sound) == round((prompt + made) * 16_000)
    assert np.abs(sound).max() > 0


@pytest.mark.parametrize("name", sorted(MODES))
def test_packed_edges_and_one_lane_change_nothing(run, name):
    sound = run(name)
    assert np.array_equal(run(name, "--set", "packed=true"), sound)
    assert np.array_equal(run(name, "--set", "lanes={}"), sound)


@pytest.mark.parametrize("name", sorted(name for name in MODES if MODES[name] != "resynthesize"))
def test_it_is_what_the_notebook_gives(run, prompt, tiny_bundle, name):
    sound = run(name)
    model = AudioLM.load(tiny_bundle)
    mine = model.continuation(None if name == "dream" else prompt, SECONDS, seed=3, mode=MODES[name])
    expected = np.clip(np.round(mine * 32768), -32768, 32767).astype(np.int16)[: len(sound)]
    assert np.array_equal(sound[-len(expected) :], expected)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_is_explained_checked_and_drawn(streamer, tiny_bundle, path):
    assert path.read_text().startswith("# ")
    assert streamer("check", path, "--bundle", tiny_bundle).out.startswith(f"{path.name} is a sound graph")
    assert streamer("graph", path.stem, "--bundle", tiny_bundle).out.startswith("flowchart LR")
    assert streamer("check", path, "--bundle", tiny_bundle, "--set", "packed=true").code == 0
