"""Bad input through the command line: exit code 2, one message with the culprit and the remedy, nothing left behind."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamer import Frame

FOLDER_OF_OUTPUT = "out"


@pytest.fixture
def refused(streamer, tmp_path):
    """`refused(arguments, *words)`: the command must refuse, say each word, and leave the output's folder empty."""
    folder = tmp_path / FOLDER_OF_OUTPUT
    folder.mkdir(exist_ok=True)

    def check(arguments, *words):
        result = streamer(*arguments)
        assert result.code == 2, result
        assert result.out == ""
        assert "Traceback" not in result.err
        said = [line for line in result.err.splitlines() if line.startswith(("streamer: error: ", "Error: "))]
        assert len(said) == 1, result.err
        for word in words:
            assert word in result.err, f"{word!r} is missing in: {result.err}"
        assert list(folder.rglob("*")) == []

    return check


@pytest.fixture
def run(tmp_path, tiny_bundle, prompt, refused):
    """`run(*words, option=value)`: `streamer run` of a good call in which the given options are changed."""
    defaults = {
        "config": "continue_file",
        "input": prompt,
        "output": tmp_path / FOLDER_OF_OUTPUT / "y.wav",
        "bundle": tiny_bundle,
        "seconds": "0.2",
    }

    def check(*words, sets=(), **changes):
        options = {key: value for key, value in (defaults | changes).items() if value is not None}
        arguments = ["run", options.pop("config")]
        for key, value in options.items():
            arguments += [f"--{key.replace('_', '-')}", value]
        for text in sets:
            arguments += ["--set", text]
        refused(arguments, *words)

    return check


# -- the prompt


def test_missing_file(run, tmp_path):
    run("no such file", "nowhere.wav", "give a WAV", input=tmp_path / "nowhere.wav")


def test_empty_file(run, tmp_path):
    (tmp_path / "empty.wav").touch()
    run("empty.wav is empty", "40 ms", input=tmp_path / "empty.wav")


def test_folder_as_a_file(run, tmp_path):
    run("is a folder", "give a sound file", input=tmp_path)


def test_text_named_wav(run, tmp_path):
    (tmp_path / "poem.wav").write_text("Shall I compare thee to a summer's day?\n" * 20)
    run("poem.wav cannot be read as sound", "give a WAV, FLAC or Ogg file", input=tmp_path / "poem.wav")


@pytest.mark.parametrize("samples", [0, 1, 639])
def test_too_short(run, tmp_path, samples):
    soundfile.write(tmp_path / "short.wav", np.zeros(samples, "int16"), 16_000)
    word = "holds no samples" if samples == 0 else f"{samples} samples"
    run("short.wav", word, "40 ms", input=tmp_path / "short.wav")


def test_raw_samples_need_the_other_node(run, tmp_path):
    (tmp_path / "sound.raw").write_bytes(bytes(6400))
    run("has no header", "pcm_in", input=tmp_path / "sound.raw")


def test_no_input_and_no_output(run):
    run("--input FILE", input=None)
    run("--output FILE", output=None)


def test_short_pcm(run, tmp_path):
    (tmp_path / "few.raw").write_bytes(bytes(200))
    output = tmp_path / FOLDER_OF_OUTPUT / "y.raw"
    run("ended after 100 samples", "at least 640", config="pipe", input=tmp_path / "few.raw", output=output)
    (tmp_path / "none.raw").touch()
    run("ended after 0 samples", config="pipe", input=tmp_path / "none.raw", output=output)


def test_missing_voice(run, tmp_path):
    voice = f"session.voice={tmp_path}/nobody.wav"
    run("nobody.wav", "no such file", config="resynthesize_file", seconds=None, sets=[voice])


# -- the output


def test_output_folder_is_missing(run, tmp_path):
    run("no such folder", "mkdir -p", output=tmp_path / "nowhere" / "y.wav")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["y.mp3", "y"])
def test_output_of_unknown_suffix(run, tmp_path, name):
    run("suffix", ".wav, .flac, .ogg", output=tmp_path / FOLDER_OF_OUTPUT / name)


def test_output_is_a_folder(run, tmp_path):
    run("is a folder", "give a file name", output=tmp_path / FOLDER_OF_OUTPUT)


def test_empty_output(run):
    run("--output is empty", "give the name", output="")


def test_output_over_the_input(run, tmp_path, prompt):
    path = tmp_path / "mine.wav"
    shutil.copy(prompt, path)
    run("--output", "mine.wav is the file of --input", "another name", input=path, output=path)
    assert path.read_bytes() == Path(prompt).read_bytes()


def test_drawing_into_a_missing_folder(refused, tiny_bundle, tmp_path):
    arguments = ["graph", "continue_file", "--bundle", tiny_bundle, "--svg"]
    refused([*arguments, tmp_path / "nowhere" / "g.svg"], "g.svg cannot be written", "folder that exists")
    refused([*arguments, tmp_path / "g.png"], "g.png", ".svg")


# -- numbers


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("-1", "greater than 0"), ("0", "greater than 0"), ("0.001", "less than a tick"), ("nan", "finite"),
        ("inf", "finite"), ("-inf", "finite"), ("1e12", "less than or equal to 604800"),
    ],
)  # fmt: skip
def test_seconds(run, value, word):
    run("session.seconds", word, seconds=value)


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "1e12"])
def test_prompt_seconds(run, value):
    run("session.prompt_seconds", "should be", prompt_seconds=value)


def test_prompt_seconds_below_a_tick(run):
    run("prompt_seconds is 0.001", "at least 0.04", prompt_seconds="0.001")


@pytest.mark.parametrize("value", ["-1", str(2**63), str(10**30)])
def test_seed(run, value):
    run("session.seed", "should be", seed=value)


@pytest.mark.parametrize("value", ["-5", "0", "nan", "inf", "1e9"])
def test_chunk_ms(run, value):
    run("chunk_ms", "should be", chunk_ms=value)


@pytest.mark.parametrize(
    ("option", "value"), [("seconds", "ten"), ("seed", "1.5"), ("seed", "x"), ("chunk_ms", ""), ("prompt_seconds", "a")]
)
def test_what_is_no_number(run, option, value):
    run(f"--{option.replace('_', '-')}", repr(value), "is not a", **{option: value})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", "-1"), ("temperature", ".nan"), ("temperature", "1e9"), ("temperature", "hot"),
        ("top_k", "-1"), ("top_k", "2.5"), ("top_p", "0"), ("top_p", "2"), ("guidance", "-1"), ("guidance", ".inf"),
    ],
)  # fmt: skip
def test_sampling(run, setting, value):
    run(f"nodes.coarse.{setting}", "should be", sets=[f"nodes.coarse.{setting}={value}"])


def test_seconds_where_the_input_says_how_long(run):
    run("--seconds", "as long as its input", "--prompt-seconds", config="reconstruct_file")


def test_absurd_repeats(refused, tiny_bundle):
    refused(["bench", "--bundle", tiny_bundle, "--repeat", "0"], "--repeat 0", "1 to 1000")


# -- unknown names, each with the nearest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("session.seeed=1", ["'seeed'", "did you mean 'seed'?"]),
        ("sesion.seed=1", ["'sesion'", "did you mean 'session'?"]),
        ("nodes.corse.temperature=1", ["unknown node 'corse'", "did you mean 'coarse'?"]),
        ("nodes.coarse.temprature=1", ["'temprature'", "did you mean 'temperature'?"]),
        ("nodes.coarse.type=corse", ["unknown node type 'corse'", "did you mean 'coarse'?"]),
        ("session.mode=contineu", ["session.mode", "'continue'"]),
        ("session.mode=", ["session.mode", "'continue'"]),
        ("engine=tensorflow", ["unknown engine 'tensorflow'", "torch"]),
        ("edges.0=inptu -> acoustic, semantic_tokens", ["unknown node 'inptu'", "did you mean 'input'?"]),
        ("edges.0=input -> acoustic.adio", ["unknown input 'adio'", "did you mean 'audio'?"]),
        ("edges.9=a -> b", ["'9' is no index", "0 to 3"]),
        ("lanes.lm=[semantic, coarse, fin]", ["unknown node 'fin'", "did you mean 'fine'?"]),
        ("session.seed", ["PATH=VALUE", "session.seed=7"]),
        ("=1", ["PATH=VALUE"]),
        ("session.seed=[", ["--set", "not valid YAML"]),
        ("nodes=7", ["nodes", "dictionary", "7"]),
        ("session.seed.deep=1", ["single value"]),
        ("hosts.here.nodes=[nobody]", ["unknown node 'nobody'"]),
        ("version=2", ["version", "should be 1"]),
        ("edges.0={from: input, to: acoustic, policy: blok}", ["policy", "'block'"]),
        ("edges.0={from: input, to: acoustic, capacity: 0}", ["capacity", "greater than or equal to 1"]),
    ],
)
def test_misspelt_set(run, text, words):
    run(*words, sets=[text])


def test_unknown_command(refused):
    refused(["rnu"], "No such command 'rnu'", "'run'")


def test_unknown_option(run):
    run("--sed", "--seed", sed="1")


def test_unknown_config(run):
    run("no config 'contine_file'", "did you mean 'continue_file.yaml'?", config="contine_file")


def test_config_is_a_folder(run, tmp_path):
    run("is a folder; expected a YAML file", config=tmp_path)


def test_unknown_node_type_to_list(refused):
    refused(["nodes", "clok"], "unknown node type 'clok'", "did you mean 'clock'?")


def test_host_without_hosts(run):
    run("--host kitchen", "no node of this config has a host", "leave --host out", host="kitchen")


def test_unknown_host(run):
    run("unknown host 'kitchn'", "did you mean 'kitchen'?", host="kitchn", sets=["hosts.kitchen.nodes=[input]"])


def test_nodes_without_a_host(run):
    run("no host for clock, acoustic", "leave --host out", host="kitchen", sets=["hosts.kitchen.nodes=[input]"])


REST = "[clock, acoustic, semantic_tokens, semantic, coarse, fine, decoder]"
TWO_HOSTS = [f"hosts={{kitchen: {{nodes: [input, output]}}, cupboard: {{nodes: {REST}}}}}"]


def test_hosts_without_a_broker(run):
    words = ["input -> acoustic.audio leads from host to host", "no section `mqtt`", "--set mqtt.host=ADDRESS"]
    run(*words, host="kitchen", sets=TWO_HOSTS)


def test_ends_on_another_host(run):
    run("--input", "'input' runs on host 'kitchen', not on 'cupboard'", "there", host="cupboard", sets=TWO_HOSTS)


def test_a_node_on_two_hosts(run):
    run("input already runs on host 'attic'", sets=[*TWO_HOSTS, "nodes.input.host=attic"])


def test_plugins_that_do_not_load(run, tmp_path):
    run("no module named 'nowhere'", plugins="nowhere")
    (tmp_path / "plugins").mkdir()
    run("holds no Python file", plugins=tmp_path / "plugins")
    (tmp_path / "plugins" / "broken.py").write_text("def register(registry:\n")
    run("--plugins", "not valid Python", plugins=tmp_path / "plugins")
    (tmp_path / "plugins" / "broken.py").write_text("x = 1\n")
    run("no `register(registry)`", plugins=tmp_path / "plugins")


def test_options_that_no_node_takes(run):
    run("--chunk-ms", "leave it out", config="dream", input=None, chunk_ms="10")
    run("--input", "no source", "leave --input out", config="dream")


# -- configs

GOOD = """
bundle: BUNDLE
nodes: {input: file, acoustic: acoustic, decoder: decoder, output: file_out}
edges: [input -> acoustic -> decoder -> output]
session: {mode: reconstruct}
"""


@pytest.fixture
def config(run, tmp_path, tiny_bundle):
    """`config(text, *words)`: run a config of this text."""

    def check(text, *words, **changes):
        path = tmp_path / "mine.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.replace("BUNDLE", tiny_bundle).encode())
        run(*words, config=path, seconds=None, bundle=None, **changes)

    return check


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes: {a: [", ["mine.yaml:line", "not valid YAML"]),
        ("nodes:\n\tclock: clock\n", ["line 2", "not valid YAML"]),
        ("seed: 1\nseed: 2\n", ["line 2", "twice"]),
        ("- a\n- b\n", ["a mapping of keys, not a list"]),
        ("", ["no nodes"]),
        (b"\xff\xfe\x00nodes", ["cannot be read as UTF-8"]),
        ("nodes: !!python/object/apply:os.system [ls]\n", ["nodes"]),
        ("engine: !!python/name:os.system\n", ["not valid YAML", "python"]),
        ("bundle: " + "x" * (1 << 20), ["bytes", "at most"]),
        ("nodes: {1: clock}\n", ["nodes"]),
        ("surprise: 1\n", ["unknown key 'surprise'", "known: bundle, edges"]),
    ],
)
def test_malformed_yaml(config, text, words):
    config(text, "mine.yaml", *words)


def test_a_cycle(config):
    text = """
bundle: BUNDLE
nodes: {input: file, f: fine, d: decoder, a: acoustic, c: coarse, clock: clock, output: file_out}
edges:
  - input -> output
  - clock -> c -> f -> d -> a -> f
session: {mode: acoustic_only}
"""
    config(text, "mine.yaml:line 6", "a cycle: ", "d -> a", "feedback: true")


def test_an_unconnected_port(config):
    text = GOOD.replace("input -> acoustic -> decoder -> output", "input -> output").replace("acoustic: acoustic, ", "")
    config(text, "mine.yaml:line 3", "nodes.decoder", "'fine' is not connected", "nodes that give it")


def test_an_output_that_leads_nowhere(config):
    text = GOOD.replace("input -> acoustic -> decoder -> output", "input -> acoustic, input -> output")
    config(text.replace("decoder: decoder, ", ""), "nodes.acoustic", "leads nowhere", "connect or remove it")


def test_kinds_that_do_not_fit(config):
    text = GOOD.replace("input -> acoustic -> decoder -> output", "input -> decoder -> output, input -> acoustic")
    config(text, "input gives audio, but decoder takes acoustic, fine")


def test_no_source(config):
    config("nodes: {output: file_out}\n", "at least one source")


def test_several_ends(config):
    text = GOOD.replace("output: file_out", "one: file_out, two: file_out")
    text = text.replace("-> output", "-> one, decoder -> two")
    config(text, "--output", "several sinks", "one, two", "nodes.NAME.path")


def test_codebook_counts_that_do_not_fit(run, tmp_path, tiny_bundle):
    """A decoder of a bundle with fewer levels than the stages give."""
    small = tmp_path / "small"
    shutil.copytree(tiny_bundle, small)
    description = json.loads((small / "config.json").read_text())
    description["codec"]["levels"] = 5
    (small / "config.json").write_text(json.dumps(description))
    run("6 codebooks come", "1 to 5 are expected", "bundle", sets=[f"nodes.decoder.bundle={small}"])


def test_a_capacity_that_would_deadlock_is_named(run):
    run("--set", "edges", sets=["edges.0.capacity=0"])


@pytest.mark.parametrize("mode", ["reconstruct", "resynthesize", "dream", "duet", "acoustic_only"])
def test_a_mode_that_does_not_fit_the_graph(run, mode):
    run("mode", repr(mode), seconds=None, sets=[f"session.mode={mode}", "session.seconds=0.2"])


# -- bundles


@pytest.fixture
def bundle(run, tmp_path, tiny_bundle):
    """`bundle(change, *words)`: run with a copy of the bundle that `change(folder)` has spoilt."""

    def check(change, *words):
        folder = tmp_path / "spoilt"
        shutil.copytree(tiny_bundle, folder)
        change(folder)
        run(*words, bundle=folder)

    return check


def _edit(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _truncate(folder):
    path = folder / "coarse.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _tamper(folder):
    path = folder / "codec.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _resize(folder):
    path = folder / "config.json"
    description = json.loads(path.read_text())
    description["stages"]["fine"]["width"] *= 2
    path.write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_truncate, ["coarse.safetensors", "truncated or altered", "fetch the bundle again"]),
        (_tamper, ["codec.safetensors", "does not match its checksum"]),
        (_resize, ["fine.safetensors", "config.json describes"]),
        (_edit(format=2), ["format 2", "this version reads 1"]),
        (_edit(codec=7), ["config.json", "codec"]),
        (_edit(codec={}), ["config.json", "codec"]),
        (_edit(stages={}), ["config.json", "semantic", "is missing"]),
        (_edit(tokenizer={"lookahead": "far"}), ["config.json", "tokenizer"]),
        (lambda folder: (folder / "config.json").write_text("{"), ["config.json is not JSON", "fetch it again"]),
        (lambda folder: (folder / "config.json").write_text("[]"), ["config.json", "format"]),
        (lambda folder: (folder / "config.json").unlink(), ["has no config.json", "give a path"]),
        (lambda folder: (folder / "fine.safetensors").unlink(), ["fine.safetensors is missing", "fetch it again"]),
    ],
)
def test_spoilt_bundle(bundle, change, words):
    bundle(change, "spoilt", *words)


def test_unknown_bundle(run, prompt):
    run("bundle 'pianoo'", "neither a bundle's name nor a folder", bundle="pianoo")
    run("neither a bundle's name nor a folder", bundle=prompt)
    run("bundle", bundle="")


# -- frames


@pytest.fixture
def replay(config, tmp_path):
    """`replay(data, *words)`: decode a token log of these bytes."""
    text = """
bundle: BUNDLE
nodes: {input: {type: replay, kinds: [fine]}, decoder: decoder, output: file_out}
edges: [input -> decoder -> output]
session: {mode: reconstruct}
"""

    def check(data, *words):
        (tmp_path / "tokens.log").write_bytes(data)
        config(text, *words, input=tmp_path / "tokens.log")

    return check


def _entry(data):
    return struct.pack("<I", len(data)) + data


def _frame(tokens, position=0, **changes):
    made = Frame.of("fine", np.asarray(tokens, "u2").reshape(2, -1), position=position, flags=2)
    return made.replace(**changes) if changes else made


FINE = _frame([0] * 12)
LAST = _entry(Frame.end("fine", position=640).pack())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["tokens.log", "is empty"]),
        (b"hello, this is text", ["tokens.log", "entry 0"]),
        (_entry(FINE.pack())[:-3], ["tokens.log", "entry 0", "cut off"]),
        (_entry(FINE.pack()[:-1]), ["entry 0"]),
        (_entry(bytes([FINE.pack()[0], 9]) + FINE.pack()[2:]), ["entry 0", "version"]),
        (struct.pack("<I", 1 << 31) + bytes(10), ["entry 0", "length"]),
        (_entry(_frame([99] * 12).pack()) + LAST, ["decoder", "99"]),
        (_entry(_frame([0] * 24).pack()) + LAST, ["decoder", "12"]),
        (_entry(FINE.pack()), ["tokens.log", "no LAST frame of fine", "cut off"]),
    ],
)
def test_bad_frames(replay, data, words):
    replay(data, *words)
