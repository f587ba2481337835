import pytest

from streamer.errors import ConfigError
from streamer.topics import Topics, as_segment, check_topic, matches


def test_the_names_of_one_instance():
    topics = Topics("house/east", "brain")
    assert topics.status == "house/east/brain/status"
    assert topics.description == "house/east/brain/description"
    assert topics.metrics == "house/east/brain/metrics"
    assert topics.probe == "house/east/brain/probe"
    assert topics.control("mode") == "house/east/brain/control/mode"
    assert topics.control_all("+") == "house/east/all/control/+"
    assert topics.stream("fine", "fine") == "house/east/brain/stream/fine/fine"
    assert topics.of("mouth").status == "house/east/mouth/status"


def test_a_control_prefix_moves_the_commands_and_nothing_else():
    topics = Topics("house", "brain", "desk/secret")
    assert topics.control("mode") == "desk/secret/brain/control/mode"
    assert topics.control_all("mode") == "desk/secret/all/control/mode"
    assert topics.status == "house/brain/status"


@pytest.mark.parametrize(
    ("topic", "command"),
    [
        ("p/brain/control/mode", "mode"),
        ("p/all/control/reset", "reset"),
        ("p/mouth/control/mode", None),
        ("p/brain/status", None),
        ("p/brain/control/", None),
        ("p/brain/control/a b", None),
        ("x/p/brain/control/mode", None),
    ],
)
def test_a_control_topic_names_its_command(topic, command):
    assert Topics("p", "brain").command(topic) == command


def test_a_receipt_stands_under_its_reader():
    reader = Topics("p", "mouth")
    assert reader.receipt(Topics("p", "brain").stream("decoder", "audio")) == "p/mouth/receipt/brain/decoder/audio"
    assert reader.receipt("other/scheme") == "p/mouth/receipt/other/scheme"


def test_a_template_is_filled():
    topics = Topics("p", "brain")
    assert topics.fill("{prefix}/{instance}/stream/{node}/{kind}", node="n", kind="audio") == topics.stream(
        "n", "audio"
    )
    assert topics.fill("plain/topic", node="n") == "plain/topic"
    with pytest.raises(ConfigError, match="unknown placeholder 'room'; known: prefix"):
        topics.fill("{room}/x", node="n")
    with pytest.raises(ConfigError, match="wildcards"):
        topics.fill("{prefix}/+", node="n")


@pytest.mark.parametrize("name", ["", "a/b", "a b", "#", "+", "é", "x" * 65, "all"])
def test_an_instance_is_one_segment(name):
    with pytest.raises(ConfigError, match="instance"):
        Topics("p", name)


@pytest.mark.parametrize("name", ["/p", "p/", "a//b", "$SYS", "p/#", "a b", "x" * 257])
def test_a_prefix_is_segments(name):
    with pytest.raises(ConfigError, match="prefix"):
        Topics(name, "brain")


def test_any_text_becomes_a_segment():
    assert as_segment("my installation (2)") == "my-installation-2"
    assert as_segment("///") == "main"
    assert len(as_segment("x" * 200)) == 64


@pytest.mark.parametrize("topic", ["", "a\0b", "a/+", "#", "$SYS/x", "x" * 1025])
def test_what_nothing_can_be_published_to(topic):
    with pytest.raises(ConfigError, match="topic"):
        check_topic(topic)


@pytest.mark.parametrize("topic", ["a/b+", "#/a", "a#", "+a/b"])
def test_misplaced_wildcards(topic):
    with pytest.raises(ConfigError, match="topic filter"):
        check_topic(topic, pattern=True)
    assert check_topic("a/+/c/#", pattern=True) == "a/+/c/#"


@pytest.mark.parametrize(
    ("wanted", "topic", "fits"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/+/c", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$share/workers/a/+", "a/b", True),
        ("$share/workers/a/+", "b/b", False),
        ("+", "", True),
    ],
)
def test_matching(wanted, topic, fits):
    assert matches(wanted, topic) is fits
