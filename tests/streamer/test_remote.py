"""Commands from elsewhere: what is taken and what is refused, and what each does to a live run."""

import asyncio
import json
import math
from pathlib import Path
from types import SimpleNamespace

import live_ends
import msgpack
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from streamer import Graph, Node
from streamer.commands.account import Account
from streamer.commands.controls import Controls
from streamer.commands.follow import Follower
from streamer.commands.remote import Remote, modes_of
from streamer.commands.sessions import Live
from streamer.commands.values import COMMANDS, PAYLOAD_BYTES, RefusedError, expected, parse, read
from streamer.errors import ConfigError
from streamer.topics import Topics

LIMIT = 30.0
CONFIG = """
session: {seconds: 10, seed: 3}
nodes: {mic: {type: fake_mic}, ear: willing, turns: fake_brain, speaker: fake_speaker}
edges: [mic -> ear -> turns -> speaker]
"""


class Willing(Node):
    """Takes every command there is, and two modes."""

    type_name = "willing"
    accepts = ("audio", "control")
    optional = ("control",)
    emits = ("audio",)
    commands = ("trigger", "listen", "mute", "length", "monitor", "gain")

    @classmethod
    def check_mode(cls, name, mode, inputs=()):
        if mode not in ("continue", "duet"):
            raise ConfigError(f"{name} knows no {mode}")

    def step(self, frame, state, into):
        if frame.kind != "control":
            yield frame


@pytest.fixture(autouse=True)
def logged():
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def made():
    """`made(text)`: a built graph of the fakes, a Live, and what steers it."""
    graphs = []

    def make(text=CONFIG):
        registry = live_ends.registry()
        registry.add(Willing)
        graph = Graph.parse(text, registry).build()
        graphs.append(graph)
        live = Live(graph, Follower(graph))
        controls = Controls(live)
        return SimpleNamespace(graph=graph, live=live, controls=controls, remote=Remote(live, controls))

    yield make
    for graph in graphs:
        graph.close()


# -- what a payload holds


@pytest.mark.parametrize(
    ("name", "payload", "value"),
    [
        ("mode", b"duet", "duet"),
        ("mode", b'"duet"', "duet"),
        ("mode", b'{"value": "duet"}', "duet"),
        ("mode", msgpack.packb("duet"), "duet"),
        ("temperature", b"0.7\n", 0.7),
        ("temperature", b"1", 1.0),
        ("temperature", msgpack.packb(0.7), 0.7),
        ("temperature", msgpack.packb({"value": 0.7}), 0.7),
        ("seed", b"9223372036854775807", 2**63 - 1),
        ("seed", b"5", 5),
        ("seed", msgpack.packb(7), 7),
        ("top_k", b"null", None),
        ("length", msgpack.packb(None), None),
        ("mute", b"true", True),
        ("mute", b"OFF", False),
        ("mute", b'"on"', True),
        ("ping", b"", None),
        ("ping", b"17.5", 17.5),
        ("ping", b"here", "here"),
    ],
)
def test_a_value_in_every_form(name, payload, value):
    got = read(name, payload).value
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("payload", [b"", b" \n", b"{}", msgpack.packb({})])
def test_commands_without_a_value(payload):
    for name in ("trigger", "listen", "reset"):
        read(name, payload)


def test_one_stage_can_be_named():
    assert read("temperature", b'{"node": "coarse", "value": 0.7}').node == "coarse"
    assert read("top_k", msgpack.packb({"node": "fine", "value": 20})).node == "fine"


DEEP = b"[" * 2000 + b"]" * 2000
REFUSED = [
    ("load_plugin", b"os", "unknown command 'load_plugin'; known: gain,"),
    ("Mode", b"duet", "did you mean 'mode'"),
    ("", b"", "unknown command ''"),
    ("temperature", b"", "nothing came as 'value'; expected a number from 0 to 2"),
    ("temperature", b"-0.1", "-0.1 came"),
    ("temperature", b"2.01", "2.01 came"),
    ("temperature", b"NaN", "NaN came; expected a finite number"),
    ("temperature", b"-Infinity", "-Infinity came; expected a finite number"),
    ("temperature", b'{"value": NaN}', "NaN came"),
    ("temperature", msgpack.packb(math.nan), "nan came"),
    ("temperature", msgpack.packb(math.inf), "inf came"),
    ("temperature", b"1e999", "inf came"),
    ("temperature", b'"0.7"', "'0.7' came as 'value'; expected a number from 0 to 2"),
    ("temperature", b"0,7", "'0,7' came; expected JSON or msgpack, such as 0.7"),
    ("temperature", b"true", "True came"),
    ("temperature", b"[0.7]", "[0.7] came"),
    ("temperature", b'{"value": {"value": 0.7}}', "came as 'value'"),
    ("temperature", b'{"node": 3, "value": 1}', "3 came as 'node'; expected a valid string"),
    ("temperature", b'{"node": null}', "nothing came as 'value'"),
    ("temperature", b'{"value": 1, "value": 2}', "a name came twice"),
    (
        "temperature",
        b'{"value": 1, "path": "/etc/passwd"}',
        "'/etc/passwd' came as 'path'; expected only value and node",
    ),
    ("temperature", DEEP, "came"),
    ("temperature", b"[" * 4000, "expected JSON or msgpack"),
    ("temperature", b"\x91" * 4000, "expected JSON or msgpack"),
    (
        "temperature",
        b" " * (PAYLOAD_BYTES + 1),
        f"{PAYLOAD_BYTES + 1} bytes came; a command has at most {PAYLOAD_BYTES}",
    ),
    ("temperature", b"0." + b"1" * PAYLOAD_BYTES, "bytes came"),
    ("seed", b"1.0", "1.0 came as 'value'; expected a whole number from 0 to 9223372036854775807"),
    ("seed", b"-1", "-1 came"),
    ("seed", b"9223372036854775808", "came as 'value'"),
    ("seed", b"9" * 4000, "came as 'value'; expected a whole number"),
    ("seed", b"true", "True came"),
    ("seed", b"!", "'!' came; expected JSON"),
    ("seed", msgpack.packb({1: 2}), "a key that is no text"),
    ("seed", msgpack.packb(msgpack.ExtType(5, b"x")), "expected JSON or msgpack"),
    ("seed", msgpack.packb(msgpack.Timestamp(1, 2)), "expected JSON or msgpack"),
    ("seed", b"\xc1", "expected JSON or msgpack"),
    ("seed", b"\x81\xa5value", "expected JSON or msgpack"),
    ("seed", msgpack.packb(3) + msgpack.packb(4), "expected JSON or msgpack"),
    ("top_k", b"1025", "1025 came as 'value'; expected a whole number from 0 to 1024, or null"),
    ("top_k", b'{"node": "coarse"}', "nothing came as 'value'"),
    ("length", b"0", "0 came as 'value'; expected a number from 0.04 to 86400, or null"),
    ("gain", b"4.5", "4.5 came as 'value'; expected a number from 0 to 4"),
    ("mute", b"", "nothing came as 'value'; expected true or false"),
    ("mute", b"1", "1 came as 'value'; expected true or false"),
    ("mute", b"maybe", "'maybe' came as 'value'; expected true or false"),
    ("mode", b"5", "5 came as 'value'; expected a text"),
    ("mode", b'"' + b"x" * 100 + b'"', "expected a text of at most 64 characters"),
    ("trigger", b"1", "it takes no value, send it empty"),
    ("reset", b'{"bundle": "/tmp/evil"}', "it takes no value"),
    ("ping", b"[1]", "expected a number or a text"),
    ("ping", b'"' + b"x" * 100 + b'"', "expected a number or a text of at most 64"),
]


@pytest.mark.parametrize(("name", "payload", "says"), REFUSED)
def test_what_is_refused_and_what_is_said(name, payload, says):
    with pytest.raises(RefusedError) as refused:
        read(name, payload)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 300


@given(st.binary(max_size=200))
def test_any_bytes_are_values_or_are_refused(payload):
    try:
        assert isinstance(parse(payload), dict)
    except RefusedError:
        return


@given(
    st.sampled_from(sorted(COMMANDS)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
)
def test_any_json_is_values_or_is_refused(name, value):
    try:
        read(name, json.dumps(value).encode())
    except RefusedError:
        return


# -- what commands do


async def until(condition):
    """Wait until something is so; there is no event for all that can be waited for."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)


def held(live):
    return {name: (command, values) for name, (command, values) in live._standing.items()}


@pytest.mark.parametrize(
    ("name", "payload", "holds"),
    [
        ("temperature", b"0.5", {"temperature of turns": ("set", {"node": "turns", "temperature": 0.5})}),
        (
            "temperature",
            b'{"node": "turns", "value": 2}',
            {"temperature of turns": ("set", {"node": "turns", "temperature": 2})},
        ),
        ("top_k", b"20", {"top_k of turns": ("set", {"node": "turns", "top_k": 20})}),
        ("top_k", b"null", {"top_k of turns": ("set", {"node": "turns", "top_k": None})}),
        ("length", b"4", {"length": ("length", {"seconds": 4})}),
        ("length", b"null", {"length": ("length", {"seconds": None})}),
        ("gain", b"1.5", {"gain": ("gain", {"value": 1.5})}),
        ("mute", b"true", {"mute": ("mute", {"on": True})}),
        ("monitor", b"on", {"monitor": ("monitor", {"on": True})}),
    ],
)
def test_what_lasts_is_told_to_every_session(made, name, payload, holds):
    one = made()
    one.remote.do(name, payload)
    assert held(one.live) == holds


def test_the_answer_is_what_is_now(made):
    remote = made().remote
    remote.do("mute", b"true")
    remote.do("gain", b"0.5")
    remote.do("length", b"null")
    now = remote.do("temperature", b"0.3")
    assert now == {
        "phase": "starting", "session": 0, "mode": "continue", "seed": 3, "muted": True, "monitor": False,
        "gain": 0.5, "seconds": None, "temperature": {"turns": 0.3}, "top_k": {"turns": None},
    }  # fmt: skip
    assert remote.do("ping", b"42") == {**now, "value": 42}


def test_keys_go_on_from_where_a_command_went(made):
    one = made()
    one.remote.do("temperature", b"1.97")
    one.controls.press("up")
    assert one.remote.now()["temperature"] == {"turns": 2.0}
    one.controls.press("down")
    one.controls.press("m")
    assert one.remote.now()["temperature"] == {"turns": 1.95}
    assert one.remote.now()["muted"]


async def test_commands_to_a_run_that_goes_on(made):
    one = made()
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.live.session.status == "running")
    one.remote.do("trigger", b"")
    one.remote.do("temperature", b"0.4")
    brain = one.graph.nodes["turns"]
    await until(lambda: ("main", "set", "turns", 0.4) in brain.commands and ("main", "trigger") in brain.commands)
    assert one.remote.do("seed", b"77")["seed"] == 77
    await until(lambda: one.live.session.info.seed == 77 and one.live.session.status == "running")
    one.remote.do("mode", b"duet")
    await until(lambda: one.live.session.info.mode == "duet" and one.live.session.status == "running")
    count = one.live.follower.sessions
    assert one.remote.do("mode", b"duet")["session"] == count
    one.remote.do("reset", b"")
    await until(lambda: one.live.follower.sessions == count + 1)
    await until(lambda: ("main-4", "set", "turns", 0.4) in brain.commands)
    one.live.end("the test")
    with pytest.raises(RefusedError, match=r"the run is ending \(the test\); it takes no command 'reset'"):
        one.remote.do("reset", b"")
    assert one.remote.do("ping", b"")["phase"] == "ending"
    await running


async def test_a_trigger_without_a_session_is_not_obeyed(made):
    one = made(CONFIG.replace("type: fake_mic", "type: fake_mic, ends_after: 1"))
    await one.live.run()
    one.live.over = None
    with pytest.raises(RefusedError, match="no session runs now"):
        one.remote.do("trigger", b"")


@pytest.mark.parametrize("payload", [b"dream", b"reconstruct", b"Duet", b"../../etc"])
def test_only_modes_that_the_graph_can_have(made, payload):
    one = made()
    with pytest.raises(RefusedError, match=r"unknown mode|expected JSON"):
        one.remote.do("mode", payload)
    assert one.live.setting("mode") == "continue"
    assert one.remote.modes == ["continue", "duet"]


def test_a_stage_that_there_is_not(made):
    one = made()
    with pytest.raises(RefusedError, match="unknown stage 'turn'; known: turns; did you mean 'turns'"):
        one.remote.do("temperature", b'{"node": "turn", "value": 1}')
    assert held(one.live) == {}


def test_what_a_graph_has_nothing_to_do_with(made):
    one = made("nodes: {mic: {type: fake_mic}, speaker: fake_speaker}\nedges: [mic -> speaker]")
    assert sorted(one.remote.commands) == ["mode", "ping", "reset", "seed"]
    assert one.remote.modes == ["continue"]
    for name, payload in (("trigger", b""), ("temperature", b"1"), ("gain", b"1")):
        with pytest.raises(RefusedError, match=r"no node of this graph (takes|samples)") as refused:
            one.remote.do(name, payload)
        assert not refused.value.concerns


@pytest.mark.parametrize(
    ("config", "modes"),
    [("mic_continue", ["continue", "duet"]), ("duplex", ["reconstruct"]), ("acoustic_only_file", ["acoustic_only"])],
)
def test_modes_of_shipped_configs(tiny_bundle, config, modes):
    assert modes_of(Graph.load(config, overrides=[f"bundle={tiny_bundle}"])) == modes


# -- what is said


def test_the_description_has_every_command_with_its_range(made):
    one = made()
    told = json.loads(json.dumps(Account(one.live, one.remote).description(), allow_nan=False))
    assert set(told["commands"]) == set(COMMANDS)
    assert told["commands"]["temperature"]["value"] == {"type": "number", "minimum": 0, "maximum": 2}
    assert told["commands"]["temperature"]["node"] == ["turns"]
    assert told["commands"]["mode"]["value"]["enum"] == told["modes"] == ["continue", "duet"]
    assert told["commands"]["length"]["value"] == {
        "type": "number", "minimum": 0.04, "maximum": 86_400, "nullable": True,
    }  # fmt: skip
    assert "value" not in told["commands"]["trigger"]
    assert told["nodes"]["ear"] == {"type": "willing", "in": ["audio", "control"], "out": ["audio"]}
    assert told["frame_version"] == 1


async def test_status_and_metrics_of_a_run(made):
    one = made()
    account = Account(one.live, one.remote)
    assert (account.status()["state"], account.status()["phase"]) == ("online", "starting")
    running = asyncio.create_task(one.live.run())
    await until(lambda: one.live.session.status == "running" and one.live.session.metrics.generated_samples > 6400)
    one.live.follower.look()
    status = account.status()
    assert (status["state"], status["turn"], status["session"], status["failed"]) == ("ready", "continuing", 1, 0)
    found = json.loads(json.dumps(account.metrics(), allow_nan=False))
    assert found["level_db"] == -20
    assert found["gauges"]["speaker.buffer_ms"] == 80
    assert "mic.device" not in found["gauges"]
    assert "speaker.connected" not in found["gauges"]
    assert set(found["node_ms"]) == {"ear", "turns"}
    assert found["tick_ms"]["p50"] > 0
    assert (found["underruns"], found["dropped"], found["turns"]) == (0, 0, 1)
    one.live.end("the test")
    await running


# -- the page


def rows(heading):
    """The cells of the table below a heading of docs/mqtt.md."""
    page = (Path(__file__).parent.parent.parent / "docs" / "mqtt.md").read_text(encoding="utf8")
    section = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_has_every_command_with_what_it_takes():
    table = {name.strip("`"): value for name, value, _ in rows("Commands")}
    assert list(table) == list(COMMANDS)
    for name, value in table.items():
        takes = COMMANDS[name].takes
        assert value == (expected(takes) if takes.model_fields else "") or name == "mode"


def test_the_page_has_every_topic():
    topics = Topics("PREFIX", "INSTANCE")
    commands = [topics.control("COMMAND"), topics.control_all("COMMAND")]
    streams = [f"{topics.root}/stream/NODE/KIND", topics.receipt("PREFIX/WRITER/stream/NODE/KIND")]
    named = [topics.status, topics.description, topics.metrics, topics.probe, *commands, *streams]
    table = [row[0].strip("`") for row in rows("Topics")]
    assert set(named) <= set(table)
