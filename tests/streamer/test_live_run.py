"""Live runs from the command line: what they say, and how they end."""

import json
import os
import signal
import subprocess
import time

import pytest

from streamer import ConfigError
from streamer.commands import front, live, sessions
from streamer.commands.load import Request, graph_for
from streamer.nodes.record import read_log

LIMIT = 60.0
CONFIG = """
session: {seconds: 10, seed: 3}
nodes: {mic: {type: fake_mic}, turns: fake_brain, speaker: fake_speaker}
edges: [mic -> turns -> speaker]
"""
RECORD = """
nodes: {mic: {type: fake_mic}, turns: fake_brain, speaker: fake_speaker, output: {type: record, path: FILE}}
edges: [mic -> turns -> speaker, turns -> output]
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "live.yaml"
    path.write_text(CONFIG)
    return path


def test_the_rule_of_standard_output_is_kept_with_json(streamer, config, plugin):
    result = streamer("run", config, "--plugins", plugin, "--for", "1.3", "--json", "--seconds", "5")
    assert result.code == 0, result
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["event"] for line in lines] == ["status"] * (len(lines) - 1) + ["summary"]
    assert len(lines) >= 2
    assert lines[-2]["seconds"] == lines[-1]["seconds"] == 5
    assert lines[-2]["phase"] == "running"
    last = lines[-1]
    assert (last["ended_by"], last["sessions"], last["turns"]) == ("--for", 1, 1)
    assert last["generated_s"] > 0
    assert last["latency_ms"]["decision_to_sound"]["p50"] == 180
    assert {"underruns", "dropped", "rtf", "peak_rss_mb", "wall_s", "lost_samples"} <= set(last)


def test_people_get_a_summary(streamer, config, plugin):
    result = streamer("run", config, "--plugins", plugin, "--for", "0.5")
    assert result.code == 0, result
    for part in ("ended by --for", "turns       1", "decision to sound p50 180 ms, p95 180 ms", "underruns 0", "MiB"):
        assert part in result.out


@pytest.mark.parametrize("json_too", [(), ("--json",)])
def test_quiet_says_nothing_but_the_summary_that_was_asked_for(streamer, config, plugin, json_too):
    result = streamer("run", config, "--plugins", plugin, "--for", "0.3", "--quiet", *json_too)
    assert (result.code, result.err) == (0, "")
    assert [json.loads(line)["event"] for line in result.out.splitlines()] == ["summary"] * len(json_too)


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "1e99"])
def test_for_is_a_time(streamer, config, plugin, given):
    result = streamer("run", config, "--plugins", plugin, f"--for={given}")
    assert result.code == 2
    assert "--for" in result.err
    assert "above 0" in result.err


def test_for_is_for_live_configs(streamer, tmp_path, prompt, tiny_bundle):
    options = ["--input", prompt, "--output", tmp_path / "y.wav", "--bundle", tiny_bundle, "--for", "3"]
    result = streamer("run", "continue_file", *options)
    assert result.code == 2
    assert "--for: no source or sink of this config is live" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there(streamer, config, plugin):
    result = streamer("run", config, "--plugins", plugin, "--set", "nodes.mic.device=nowhere")
    assert result.code == 2
    assert "there are: fake" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("USB", "USB"),
        ("USB Audio 2", "USB Audio 2"),
        ("HDA Intel PCH: ALC257 Analog (hw:0,0)", "HDA Intel PCH: ALC257 Analog (hw:0,0)"),
        ("Built-in #2", "Built-in #2"),
        ("Jack's microphone:", "Jack's microphone:"),
        ("hw:1,0", "hw:1,0"),
        ("3", 3),
        ('"3"', "3"),
        ('"USB: 2"', "USB: 2"),
    ],
)
def test_names_of_devices_on_the_command_line(config, plugin, given, meant):
    graph = graph_for(Request(str(config), sets=(f"nodes.mic.device={given}",), plugins=plugin))
    assert graph.plan.settings["mic"].device == meant
    assert live.is_live(graph)


def test_a_mapping_is_no_device(config, plugin):
    with pytest.raises(ConfigError, match=r"nodes\.mic\.device"):
        graph_for(Request(str(config), sets=("nodes.mic.device={a: 1}",), plugins=plugin))


def test_a_reader_that_sleeps_is_not_waited_for():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb", buffering=0) as stream:
        assert front.takes(stream)
        while stream.write(b"x" * 65_536):
            continue
        assert not front.takes(stream)


# -- signals


@pytest.fixture
def recording(program, tmp_path, plugin):
    """`recording(*sets, **options)`: a live run as a process, once it records; and the file it will leave."""
    output = tmp_path / "frames.log"
    started = []

    def start(*sets, **options):
        (tmp_path / "record.yaml").write_text(RECORD.replace("FILE", str(output)))
        more = [each for text in sets for each in ("--set", text)]
        arguments = ["run", tmp_path / "record.yaml", "--plugins", plugin, "--json", *more]
        process = program(*arguments, stdin=subprocess.DEVNULL, **options)
        started.append(process)
        while b'"state": "continuing"' not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()
        return process, output

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_ends_it_cleanly_and_files_are_kept(recording, number, code):
    process, output = recording()
    begun = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT)
    took = time.monotonic() - begun
    assert process.returncode == code, err
    found = json.loads(out.splitlines()[-1])
    assert found["event"] == "summary"
    assert found["ended_by"] == number.name
    frames = list(read_log(output))
    assert frames[-1].last
    assert sum(frame.samples for frame in frames) == round((found["heard_s"] + found["generated_s"]) * 16_000)
    assert [each.name for each in output.parent.iterdir() if "frames" in each.name] == ["frames.log"]
    assert took < 20, "it takes part of a second; the limit is for machines that are busy with other things"


def test_a_second_signal_cuts_it_off(recording):
    process, output = recording("nodes.speaker.hangs=true")
    process.send_signal(signal.SIGTERM)
    while b'"phase": "ending"' not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 143
    assert "cut off" in err.decode()
    assert "Traceback" not in err.decode()
    assert not output.with_name("frames.log.part").exists()


def test_a_speaker_is_not_waited_for(streamer, config, plugin):
    options = ["--set", "nodes.speaker.hangs=true", "--for", "0.2"]
    result = streamer("run", config, "--plugins", plugin, *options)
    assert result.code == 0
    assert "level=error" not in result.err


def test_files_that_are_not_finished_in_time_are_a_failure(streamer, tmp_path, plugin, monkeypatch):
    monkeypatch.setattr(sessions, "GRACE", 0.1)
    (tmp_path / "record.yaml").write_text(RECORD.replace("FILE", str(tmp_path / "frames.log")))
    options = ["--set", "nodes.speaker.hangs=true", "--for", "0.2"]
    result = streamer("run", tmp_path / "record.yaml", "--plugins", plugin, *options)
    assert result.code == 1
    assert "not finished within 0.1 s: its files are removed" in result.err


def test_hanging_up_is_ignored_under_nohup(recording):
    process, _ = recording(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    assert b'"phase": "running"' in process.stdout.readline()
    assert b'"phase": "running"' in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=LIMIT)
    assert process.returncode == 143


def test_a_reader_that_goes_away_ends_it_and_files_are_kept(recording):
    process, output = recording()
    process.stdout.close()
    process.stdout = None
    assert process.wait(timeout=LIMIT) == 0
    assert list(read_log(output))[-1].last
    assert "Traceback" not in process.stderr.read().decode()
