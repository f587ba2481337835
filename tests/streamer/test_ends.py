"""What --input and --output mean: a file for the node that takes one, or in place of the only device."""

import pytest

from streamer import ConfigError
from streamer.commands.ends import end_of
from streamer.commands.load import Request, graph_for, registry_for
from streamer.config import parse
from streamer.node import Sink, Source

HOSTS = "hosts={ears: {nodes: [mic, turns, acoustic, semantic_tokens]}, mouth: {nodes: [decoder, speaker]}, "
HOSTS += "brain: {nodes: [semantic, coarse, fine]}}"


@pytest.fixture
def plan_of(tiny_bundle):
    """`plan_of(config, option=value)`: the checked plan of a request."""

    def call(name="mic_continue", **options):
        return graph_for(Request(name, bundle=tiny_bundle, **options)).plan

    return call


def test_files_take_the_place_of_the_devices(plan_of, tmp_path):
    live = plan_of()
    assert live.live(Source) == ("mic",)
    assert live.live(Sink) == ("speaker",)
    given = plan_of(input="in.wav", output=str(tmp_path / "out.wav"), sets=("nodes.mic.device=USB",))
    assert (given.types["mic"].type_name, given.types["speaker"].type_name) == ("file", "file_out")
    assert given.settings["mic"].path.endswith("/in.wav")
    assert given.settings["speaker"].path == str(tmp_path / "out.wav")
    assert (given.live(Source), given.live(Sink)) == ((), ())
    lost = {port.label for port in live.ports} - {port.label for port in given.ports}
    assert lost == {"turns -> speaker.control"}, "a file takes no commands"


def test_one_of_them_may_stay_a_device(plan_of):
    assert plan_of(input="in.wav").live(Sink) == ("speaker",)
    assert plan_of(output="out.wav").live(Source) == ("mic",)


@pytest.mark.parametrize("name", ["duet", "duplex", "resynthesize_mic"])
def test_every_live_config_takes_files(plan_of, name):
    given = plan_of(name, input="in.wav", output="out.wav")
    assert (given.live(Source), given.live(Sink)) == ((), ())


def test_options_of_sources_hold_for_the_file_in_place_of_the_microphone(plan_of):
    given = plan_of(input="in.wav", output="out.wav", realtime=True, chunk_ms=17.0)
    assert (given.settings["mic"].realtime, given.settings["mic"].chunk_ms) == (True, 17.0)


CHAIN = """
nodes: {mic: microphone, turns: turns, speaker: speaker}
edges:
  - {from: mic -> turns, capacity: 9}
  - {from: "turns -> speaker.audio, speaker.control", capacity: 7}
"""


def test_only_the_link_that_cannot_be_is_left_out(tmp_path, tiny_bundle):
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN)
    live = graph_for(Request(str(path), bundle=tiny_bundle)).plan
    plan = graph_for(Request(str(path), bundle=tiny_bundle, input="in.wav", output="out.wav")).plan
    lost = [port for port in live.ports if port not in plan.ports]
    assert [port.label for port in lost] == ["turns -> speaker.control"]
    assert (plan.loaded.line(("edges", 1)), plan.ports[1].capacity) == (5, 7)


def test_what_a_speaker_could_not_take_either_is_still_an_error(tmp_path, tiny_bundle):
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN.replace("speaker.control", "speaker.contrl"))
    with pytest.raises(ConfigError, match="unknown input 'contrl'"):
        graph_for(Request(str(path), bundle=tiny_bundle, input="in.wav", output="out.wav"))


def test_several_microphones_need_a_name():
    loaded = parse("nodes: {a: microphone, b: microphone, o: file_out}\n")
    with pytest.raises(ConfigError, match=r"several nodes are a microphone: a, b; .*nodes\.NAME\.type=file"):
        end_of(loaded, registry_for(), "input")
    assert end_of(loaded, registry_for(), "output") == "o"
    with pytest.raises(ConfigError, match="no sink of this config has a `path` or is a speaker"):
        end_of(parse("nodes: {a: microphone}\n"), registry_for(), "output")


def test_an_end_on_another_host_is_given_there(plan_of):
    with pytest.raises(ConfigError, match="'mic' runs on host 'ears', not on 'brain'; give --input there") as error:
        plan_of(host="brain", input="in.wav", sets=(HOSTS, "mqtt.port=1884"))
    assert "--set 'nodes.mic={type: file, host: ears}'" in str(error.value)


@pytest.mark.parametrize("live", [True, False])
def test_a_share_is_live_as_the_whole_graph_is(plan_of, live):
    sets = (HOSTS, "mqtt.port=1884") if live else (HOSTS, "mqtt.port=1884", "nodes.mic={type: file, host: ears}")
    plan = plan_of(host="brain", sets=sets)
    assert bool(plan.live(Source)) == live
    assert {plan.settings[name].policy for name in plan.names(Sink)} == {"drop_oldest" if live else "block"}
    assert plan.loaded.config.mqtt.instance == "brain"


def test_a_file_in_place_of_a_microphone_stays_on_its_host(plan_of, tmp_path):
    text = "mqtt: {}\nnodes: {mic: {type: microphone, host: a}, acoustic: {type: acoustic, host: b},\n"
    text += "  decoder: {type: decoder, host: b}, speaker: {type: speaker, host: a}}\n"
    text += "edges: [mic -> acoustic -> decoder -> speaker]\nsession: {mode: reconstruct}\n"
    (tmp_path / "two.yaml").write_text(text)
    plan = plan_of(str(tmp_path / "two.yaml"), host="a", input="in.wav", output="out.wav")
    assert plan.types["mic"].type_name == "file"
    assert set(plan.types) == {"mic", "speaker", "to-b-mic", "from-b-decoder-audio"}
