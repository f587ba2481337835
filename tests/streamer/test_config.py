import json

import pytest

from streamer import config
from streamer.errors import ConfigError
from streamer.settings import Edge

GOOD = """\
version: 1
session:
  seed: 3
nodes:
  src: {type: count, ticks: 4}
  out: collect
edges:
  - src -> out
"""


def test_reads_what_is_there_and_knows_the_lines():
    loaded = config.parse(GOOD, file="good.yaml")
    assert loaded.config.session.seed == 3
    assert loaded.config.nodes["out"].type == "collect"
    assert loaded.config.nodes["src"].own == {"ticks": 4}
    assert loaded.line(("session", "seed")) == 3
    assert loaded.line(("edges", 0)) == 8


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("sesion: {}", 1, "did you mean 'session'"),
        (
            "session:\n  sead: 1",
            2,
            "known: include_prompt, mode, prompt_seconds, seconds, seed, shed, voice, watermark; did you mean",
        ),
        ("session:\n  mode: dreem", 2, "did you mean 'dream'"),
        ("session: {seconds: .nan}", 1, "finite"),
        ("session: {seconds: -1}", 1, "greater than 0, not -1"),
        ("session: {seconds: 1e400}", 1, "session.seconds"),
        ("session: {seed: 1.5}", 1, "integer"),
        ("nodes:\n  a: {}\n", 2, "required"),
        ("nodes:\n  a: x\n  a: y\n", 3, "stands here twice"),
        ("nodes:\n  a b: x\n", 2, "pattern"),
        ("edges:\n  - {from: a, two: b}\n", 2, "known: .*from.*to"),
        ("edges:\n  - {from: a, to: b, policy: drop}\n", 2, "did you mean 'drop_oldest'|Input should be"),
        ("edges:\n  - {from: a, to: b, capacity: 0}\n", 2, "greater than or equal to 1"),
        ("version: 2", 1, "Input should be 1"),
        ("mqtt: {host: h, port: 99999}", 1, "65535"),
        ("mqtt:\n  hots: h", 2, "did you mean 'host'"),
        ("a: [1", 1, "not valid YAML"),
        ("- a\n- b", 1, "mapping"),
        ("x: !!python/object:os.system {}", 1, "known"),
    ],
)
def test_bad_config_says_line_and_remedy(text, line, message):
    with pytest.raises(ConfigError, match=message) as error:
        config.parse(text, file="bad.yaml")
    assert error.value.line == line
    assert str(error.value).startswith(f"bad.yaml:line {line}: ")


def test_set_changes_any_path():
    loaded = config.parse(
        GOOD, ["session.seed=9", "nodes.src.ticks=2", "nodes.out.wait=0.5", "packed=true", "lanes.ear=[src]"]
    )
    assert loaded.config.session.seed == 9
    assert loaded.config.nodes["src"].own == {"ticks": 2}
    assert loaded.config.nodes["out"].own == {"wait": 0.5}
    assert loaded.config.packed
    assert loaded.config.lanes == {"ear": ["src"]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sesion.seed=1", "did you mean 'session'"),
        ("session.seedd=1", "did you mean 'seed'"),
        ("nodes.scr.ticks=1", "did you mean 'src'"),
        ("session.seed", "PATH=VALUE"),
        ("=3", "PATH=VALUE"),
        ("session.seed.x=3", "single value"),
        ("edges.7=a -> b", "expected 0 to 0"),
        ("session.seed=[", "not valid YAML"),
    ],
)
def test_misspelt_set(override, message):
    with pytest.raises(ConfigError, match=message):
        config.parse(GOOD, [override])


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("a -> b, c", [("a", "b", ""), ("a", "c", "")]),
        ("a -> b -> c", [("a", "b", ""), ("b", "c", "")]),
        ("a, b -> c.x -> d", [("a", "c", "x"), ("b", "c", "x"), ("c", "d", "")]),
    ],
)
def test_edge_syntax(text, links):
    assert Edge.model_validate(text).links() == links


def test_edge_mapping_form():
    edge = Edge.model_validate({"from": "a", "to": "b.x, c", "feedback": True})
    assert edge.links() == [("a", "b", "x"), ("a", "c", "")]


@pytest.mark.parametrize("text", ["a", "a ->", "a -> b c", "-> b", "a.x -> b", "a -> b..c", "a->->b"])
def test_bad_edges(text):
    with pytest.raises(ValueError, match=r"leads nowhere|not a node name|starts at a node"):
        Edge.model_validate(text).links()


def test_missing_file_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="no config"):
        config.load(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="folder"):
        config.load(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"UTF-8|YAML"):
        config.load(tmp_path / "x.yaml")


def test_aliases_cannot_explode():
    text = "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
    for old, new in zip("abcdefg", "bcdefgh", strict=True):
        text += f"{new}: &{new} [{','.join(['*' + old] * 10)}]\n"
    with pytest.raises(ConfigError, match="more than"):
        config.parse(text)


def test_schema_is_json():
    made = config.schema()
    assert set(made["properties"]) >= {"nodes", "edges", "lanes", "session", "packed"}
    assert json.loads(json.dumps(made)) == made
