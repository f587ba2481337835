"""The command line: what each command prints, exit codes, signals, pipes."""

import json
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from audiolm.io import MARK, read_metadata
from streamer.commands import hops, progress
from streamer.commands.load import Request, graph_for
from streamer.node import Source

KEYS = {"output", "bundle", "seed", "seconds", "rtf", "first_sample_ms", "tick_ms", "dropped", "peak_rss_mb"}
PLUGIN = '''
"""A node that fails."""
from streamer import Node

class Fail(Node):
    """Fails."""
    type_name = "fail"
    accepts = ("audio",)
    emits = ("audio",)

    def step(self, frame, state, input):
        raise RuntimeError("the amplifier is on fire")

def register(registry):
    registry.add(Fail)
'''


@pytest.fixture
def continued(streamer, prompt, tiny_bundle, tmp_path):
    """`continued(*more, output=NAME)`: continue the prompt by 0.2 s into a file; gives its path and the result."""

    def call(*more, name="y.wav", source=prompt):
        path = tmp_path / name
        options = ["--input", source, "--output", path, "--bundle", tiny_bundle, "--seconds", "0.2"]
        result = streamer("run", "continue_file", *options, *more)
        assert result.code == 0, result
        return path, result

    return call


# -- run


def test_run_writes_prompt_and_continuation(continued):
    path, result = continued("--seed", "7", "--set", "nodes.coarse.temperature=0.7")
    sound, rate = soundfile.read(path)
    assert (rate, len(sound)) == (16_000, round((0.64 + 0.2) * 16_000))
    assert np.abs(sound).max() > 0
    found = read_metadata(path)
    assert found.mark.startswith(MARK)
    assert found.settings["seed"] == 7
    assert found.settings["coarse.temperature"] == 0.7
    assert found.settings["bundle"] == "tiny"
    assert not any("/" in str(value) for value in found.settings.values())
    for word in ("result", "first sample", "real-time factor", "to repeat"):
        assert word in result.out


def test_the_json_is_the_last_line_of_standard_output(continued, tiny_bundle):
    path, result = continued("--json", "--seed", "3")
    found = json.loads(result.out.splitlines()[-1])
    assert set(found) >= KEYS
    assert found["output"] == str(path)
    assert (found["bundle"], found["seed"], found["seconds"]) == (tiny_bundle, 3, 0.2)
    assert found["heard_s"] == pytest.approx(0.64)
    assert found["generated_s"] == pytest.approx(0.2)
    assert found["rtf"] == pytest.approx(found["wall_s"] / 0.84, rel=0.01)
    assert 0 < found["tick_ms"]["p50"] <= found["tick_ms"]["p95"] <= found["tick_ms"]["p99"]
    assert found["first_sample_ms"] > 0
    assert found["peak_rss_mb"] > 10
    assert found["dropped"] == 0
    assert set(found["node_ms"]) == {"acoustic", "semantic_tokens", "semantic", "coarse", "fine", "decoder"}


def test_same_seed_same_file_whatever_the_chunking(continued):
    whole = continued("--seed", "1")[0].read_bytes()
    for i, chunk in enumerate(("0.0625", "7", "40", "1000")):
        assert continued("--seed", "1", "--chunk-ms", chunk, name=f"{i}.wav")[0].read_bytes() == whole
    assert continued("--seed", "2", name="other.wav")[0].read_bytes() != whole


def test_the_command_that_is_printed_repeats_the_sound(continued, streamer):
    path, result = continued("--seed", "5", "--set", "nodes.fine.temperature=0.5")
    before = path.read_bytes()
    path.unlink()
    line = next(line for line in result.out.splitlines() if line.startswith("to repeat"))
    command = shlex.split(line.removeprefix("to repeat"))
    assert command[0] == "streamer"
    assert streamer(*command[1:]).code == 0
    assert path.read_bytes() == before


def test_quiet_says_nothing(continued):
    result = continued("--quiet")[1]
    assert (result.out, result.err) == ("", "")


def test_an_old_result_is_replaced(continued, tmp_path):
    (tmp_path / "y.wav").write_bytes(b"old")
    path, _ = continued()
    assert soundfile.info(path).frames == 13_440
    assert [each.name for each in tmp_path.iterdir()] == ["y.wav"]


def test_prompt_seconds_and_no_prompt_in_the_output(continued):
    path, _ = continued("--prompt-seconds", "0.4", "--set", "session.include_prompt=false")
    assert soundfile.info(path).frames == 3200
    path, result = continued("--prompt-seconds", "0.4", "--json", name="z.wav")
    assert soundfile.info(path).frames == 9600
    assert json.loads(result.out)["prompt_seconds"] == 0.4


@pytest.mark.parametrize("name", ["y.flac", "y.ogg", "y.opus"])
def test_other_formats_out(continued, name):
    path, _ = continued(name=name)
    assert abs(soundfile.info(path).duration - 0.84) < 0.05
    assert read_metadata(path).mark.startswith(MARK)


@pytest.mark.parametrize(
    "case",
    [
        ("a.wav", 44_100, 2, "PCM_16", ["down-mixed 2 channels", "resampled 44100 -> 16000 Hz"]),
        ("a.wav", 48_000, 1, "PCM_24", ["resampled 48000 -> 16000 Hz"]),
        ("a.wav", 8_000, 1, "FLOAT", ["resampled 8000 -> 16000 Hz"]),
        ("a.flac", 22_050, 3, "PCM_24", ["down-mixed 3 channels", "resampled 22050 -> 16000 Hz"]),
        ("a.ogg", 48_000, 2, "VORBIS", ["down-mixed 2 channels", "resampled 48000 -> 16000 Hz"]),
        ("a.wav", 16_000, 1, "DOUBLE", []),
        ("a.wav", 16_000, 1, "PCM_U8", []),
    ],
)
def test_any_rate_and_channels_and_it_is_said(continued, tmp_path, case):
    name, rate, channels, subtype, notes = case
    clock = np.arange(round(0.6 * rate)) / rate
    sound = np.stack([0.3 * np.sin(2 * np.pi * 300 * clock)] * channels, axis=1)
    soundfile.write(tmp_path / name, sound, rate, subtype=subtype)
    path, result = continued(source=tmp_path / name, name="out.wav")
    assert soundfile.info(path).frames == round((0.6 + 0.2) * 16_000)
    assert [note for note in notes if note not in result.err] == []
    assert ("down-mixed" in result.err, "resampled" in result.err) == (channels > 1, rate != 16_000)


def test_realtime_paces_every_source_that_can(tiny_bundle, prompt):
    paced = graph_for(Request("continue_file", bundle=tiny_bundle, input=prompt, realtime=True)).plan
    assert {name: paced.settings[name].realtime for name in paced.names(Source)} == {"input": True, "clock": True}


def test_a_host_that_has_every_node(continued):
    nodes = "[input, clock, acoustic, semantic_tokens, semantic, coarse, fine, decoder, output]"
    path, _ = continued("--host", "here", "--set", f"hosts.here.nodes={nodes}")
    assert path.exists()


def test_the_settings_of_an_absurd_number_of_nodes_are_left_out(streamer, prompt, tmp_path):
    """A sound file holds about 1900 bytes of metadata."""
    loud = PLUGIN.replace('raise RuntimeError("the amplifier is on fire")', "yield frame")
    loud = loud.replace('type_name = "fail"', 'type_name = "loud"\n    Config = Loud')
    loud = loud.replace("class Fail", "class Loud(Settings):\n    word: str\n\nclass Fail").replace(
        "Node\n", "Node, Settings\n", 1
    )
    (tmp_path / "loud.py").write_text(loud)
    names = [f"n{i}" for i in range(60)]
    nodes = "".join(f"  {name}: {{type: loud, word: {'x' * 30}}}\n" for name in names)
    edges = f"edges: [input -> {' -> '.join(names)} -> output]\nsession: {{mode: reconstruct}}\n"
    (tmp_path / "long.yaml").write_text(f"nodes:\n  input: file\n  output: file_out\n{nodes}{edges}")
    ends = ["--input", prompt, "--output", tmp_path / "y.wav"]
    result = streamer("run", tmp_path / "long.yaml", *ends, "--plugins", tmp_path / "loud.py")
    assert result.code == 0, result
    assert "too long" in result.err
    settings = read_metadata(tmp_path / "y.wav").settings
    assert settings["config"] == "long.yaml"
    assert "n0.word" not in settings


def test_a_failing_plugin_is_another_failure(streamer, prompt, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "fail.py").write_text(PLUGIN)
    text = "nodes: {input: file, fail: fail, output: file_out}\nedges: [input -> fail -> output]\n"
    (tmp_path / "fail.yaml").write_text(text)
    output = tmp_path / "y.wav"
    options = ["--input", prompt, "--output", output, "--plugins", tmp_path / "plugins"]
    result = streamer("run", tmp_path / "fail.yaml", *options)
    assert result.code == 1
    assert "node 'fail'" in result.err.splitlines()[-1]
    assert "the amplifier is on fire" in result.err.splitlines()[-1]
    assert 'in step\n    raise RuntimeError("the amplifier' in result.err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["fail.yaml", "plugins"]
    assert "fail (node): Fails." in streamer("nodes", "fail", "--plugins", tmp_path / "plugins").out


# -- progress


def test_progress_is_said_when_it_takes_long(continued, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    assert "event=progress" in continued()[1].err


def test_progress_of_a_session(tiny_bundle, prompt):
    from streamer import Session

    watch = progress.Watch(enabled=False)
    assert watch.state() == ("loading", 0.0, None)
    session = Session(graph_for(Request("continue_file", bundle=tiny_bundle, input=prompt, seconds=0.4)))
    watch.follow(session)
    session.status = "running"
    session.metrics.sound(1600, generated=False)
    assert watch.state() == ("listening", 0.1, None)
    session.metrics.sound(3200, generated=True)
    assert watch.state() == ("continuing", 0.2, 0.4)


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "REFRESH", 0.01)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.Watch():
        time.sleep(0.3)
    assert "loading" in capsys.readouterr().err


# -- pipes and signals


def test_a_pipe_gives_what_a_file_gives(program, continued, prompt, tiny_bundle):
    path, _ = continued("--set", "session.include_prompt=false", "--seed", "4")
    pcm = soundfile.read(prompt, dtype="int16")[0].tobytes()
    process = program(
        "run", "pipe", "--bundle", tiny_bundle, "--seconds", "0.2", "--seed", "4", "--json", stdin=subprocess.PIPE
    )
    out, err = process.communicate(pcm, timeout=60)
    assert process.returncode == 0, err
    assert np.array_equal(np.frombuffer(out, "<i2"), soundfile.read(path, dtype="int16")[0])
    found = json.loads(err.decode().splitlines()[-1])
    assert found["output"] is None
    assert found["generated_s"] == pytest.approx(0.2)


def test_a_reader_that_goes_away_ends_it_quietly(program, prompt, tiny_bundle):
    process = program("run", "pipe", "--bundle", tiny_bundle, "--seconds", "600", stdin=subprocess.PIPE)
    process.stdin.write(soundfile.read(prompt, dtype="int16")[0].tobytes())
    process.stdin.close()
    assert len(process.stdout.read(1000)) == 1000
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    said = process.stderr.read().decode()
    process.stderr.close()
    assert [line for line in said.splitlines() if "level=info" not in line] == []


def stopped(program, number, output, *arguments):
    """Run until the output is being written, send a signal; gives exit code, seconds it took, and what was said."""
    process = program("run", *arguments, "--output", output)
    deadline = time.monotonic() + 60
    while not list(output.parent.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, process.stderr.read()
    begun = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, time.monotonic() - begun, err.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(program, prompt, tiny_bundle, tmp_path, number):
    arguments = ["continue_file", "--input", prompt, "--bundle", tiny_bundle, "--seconds", "600"]
    ended, took, said = stopped(program, number, tmp_path / "y.wav", *arguments)
    assert ended == 128 + number
    assert "ended by a signal" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    assert took < 30, "it takes part of a second; the limit is for machines that are busy with other things"


def test_an_endless_session_keeps_what_it_made(program, tiny_bundle, tmp_path):
    output = tmp_path / "y.wav"
    arguments = ["dream", "--bundle", tiny_bundle, "--set", "session.seconds=null"]
    ended, _, said = stopped(program, signal.SIGINT, output, *arguments)
    assert ended == 130, said
    assert soundfile.info(output).frames >= 640
    assert [each.name for each in tmp_path.iterdir()] == ["y.wav"]


# -- looking


def test_help_and_schema_do_not_load_the_model():
    code = """
import sys
from streamer.cli import app
for arguments in (["--help"], ["run", "--help"], ["schema"]):
    try:
        app(arguments, prog_name="streamer")
    except SystemExit as ended:
        assert not ended.code, ended.code
heavy = {"torch", "audiolm", "soundfile", "rich"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_check(streamer, tiny_bundle):
    result = streamer("check", "continue_file", "--bundle", tiny_bundle)
    assert result.code == 0
    assert "lane     lm: semantic, coarse, fine" in result.out
    assert "delay    semantic_tokens: 80 ms" in result.out
    found = json.loads(streamer("check", "continue_file", "--bundle", tiny_bundle, "--json").out)
    assert found["lanes"]["codec"] == ["acoustic", "semantic_tokens", "decoder"]
    assert found["sinks"] == {"output": "file_out"}
    assert all(port["capacity"] >= port["least"] for port in found["ports"])


def test_graph(streamer, tiny_bundle, tmp_path):
    result = streamer("graph", "continue_file", "--bundle", tiny_bundle)
    assert result.out.startswith("flowchart LR\n")
    path = tmp_path / "g.svg"
    assert streamer("graph", "continue_file", "--bundle", tiny_bundle, "--svg", path).code == 0
    assert path.read_text().startswith("<svg ")
    assert [each.name for each in tmp_path.iterdir()] == ["g.svg"]


def test_nodes(streamer):
    found = {each["type"]: each for each in json.loads(streamer("nodes", "--json").out)}
    assert {"file", "file_out", "pcm_in", "pcm_out", "clock", "coarse", "record", "replay"} <= set(found)
    assert all(each["help"] for each in found.values())
    coarse = {setting["name"]: setting for setting in found["coarse"]["settings"]}
    assert coarse["temperature"]["limits"] == {">=": 0, "<=": 10}
    assert found["record"]["settings"][0]["required"] is True
    assert all(f"\n{name} (" in "\n" + streamer("nodes").out for name in found)
    text = streamer("nodes", "clock").out
    assert text.startswith("clock (source): ")
    assert "  gives  tick\n" in text
    assert "  realtime: bool, default false; " in text


def test_a_node_type_that_cannot_be_loaded_does_not_hide_the_others(streamer, tmp_path):
    register = "def register(registry):\n    registry.add('nowhere.to.be:found', 'lost')\n"
    (tmp_path / "lost.py").write_text(register)
    result = streamer("nodes", "--plugins", tmp_path / "lost.py")
    assert result.code == 0
    assert "lost: cannot be used here: 'nowhere.to.be:found': no module named 'nowhere'" in result.out
    assert "clock (source)" in result.out


def test_schema_describes_what_configs_hold(streamer):
    found = json.loads(streamer("schema").out)
    assert set(found["properties"]) >= {"version", "bundle", "session", "nodes", "edges", "lanes", "hosts", "plugins"}
    assert found["additionalProperties"] is False


def test_bench(streamer, tiny_bundle):
    result = streamer("bench", "--bundle", tiny_bundle, "--seconds", "0.2", "--repeat", "2", "--json")
    assert result.code == 0, result
    records = [json.loads(line) for line in result.out.splitlines()]
    graph, hop, six = records[0], records[-2], records[-1]
    assert (graph["bench"], graph["runs"], graph["heard_s"]) == ("graph", 2, 3.0)
    assert graph["rtf"] > 0
    assert {record["node"] for record in records if record["bench"] == "node"} >= {"semantic", "coarse", "fine"}
    assert abs(hop["us"]) < 1000  # a difference of two medians: on a busy machine it may be below zero
    assert 0 < six["ms"]["p50"] <= six["ms"]["p99"]
    assert "real-time factor" in result.err


def test_bench_of_other_configs_needs_no_files(streamer, tiny_bundle, monkeypatch):
    monkeypatch.setattr(hops, "FRAMES", 50)
    monkeypatch.setattr(hops, "PACED", 5)
    for config in ("pipe", "reconstruct_file", "resynthesize_file", "dream"):
        seconds = [] if config.endswith("_file") else ["--seconds", "0.2"]
        result = streamer("bench", config, "--bundle", tiny_bundle, "--repeat", "1", *seconds)
        assert result.code == 0, result
        assert f"{config}.yaml, bundle" in result.out
    assert "hop inside a lane" in streamer("bench", "--no-model").out
