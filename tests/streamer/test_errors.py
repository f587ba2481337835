from streamer.errors import ConfigError, InputError, NodeError, nearest, unknown


def test_config_error_says_where():
    error = ConfigError("no", line=3, path="a.b", file="x.yaml")
    assert str(error) == "x.yaml:line 3: a.b: no"
    assert (error.line, error.path, error.exit_code) == (3, "a.b", 2)
    assert str(ConfigError("no")) == "no"


def test_node_error_keeps_the_exit_code():
    assert NodeError.wrap("n", InputError("x"), position=640).exit_code == 2
    assert (
        str(NodeError.wrap("n", ValueError("x"), position=640)) == "node 'n' at position 640 (0.040 s): ValueError: x"
    )


def test_nearest():
    assert nearest("temprature", ["temperature", "top_k"]) == "; did you mean 'temperature'?"
    assert nearest("zzz", ["temperature"]) == ""
    assert unknown("node", "x", []) == "unknown node 'x'; known: none"
