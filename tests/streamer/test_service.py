"""The systemd unit of a live run: what is in it, who may overwrite it, and where secrets go."""

import os
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import lasting_ends
import pytest

from streamer.commands import service

CONFIG = """
hosts: {}
nodes: {ears: ticker, count: counter, mouth: mouth}
edges: [ears -> count -> mouth]
"""


@pytest.fixture
def home(tmp_path, monkeypatch, streamer):
    """A home of its own, a live config in it, and `install(*options)`."""
    for name, folder in (("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    config = tmp_path / "show piece.yaml"
    config.write_text(CONFIG)

    def install(*options, config=config):
        return streamer("service", "install", config, "--plugins", lasting_ends.__file__, *options)

    units, secrets = tmp_path / "config/systemd/user", tmp_path / "config/streamer"
    return SimpleNamespace(path=tmp_path, config=config, install=install, units=units, secrets=secrets)


def lines(text):
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def test_it_writes_a_unit_and_says_how_to_start_it(home):
    result = home.install("--name", "foyer", "--set", "session.seed=4")
    assert result.code == 0, result.err
    unit = home.units / "streamer-foyer.service"
    found = lines(unit.read_text())
    assert (found["Type"], found["WatchdogSec"], found["Restart"], found["WantedBy"]) == (
        "notify", "30", "always", "default.target",
    )  # fmt: skip
    assert found["SuccessExitStatus"] == "143", "SIGTERM ends it with 143, and that is no failure"
    assert (found["NoNewPrivileges"], found["MemoryMax"], found["StartLimitIntervalSec"]) == ("yes", "80%", "0")
    assert "network-online.target sound.target" in found["After"]
    assert shlex.split(found["ExecStart"]) == [
        sys.executable, "-P", "-m", "streamer", "run", str(home.config), "--forever",
        "--plugins", lasting_ends.__file__, "--state", str(home.path / "state/streamer/foyer"),
        "--set", "session.seed=4",
    ]  # fmt: skip
    for said in (
        "systemctl --user enable --now streamer-foyer.service",
        "loginctl enable-linger",
        "journalctl --user -u streamer-foyer.service -f",
    ):
        assert said in result.out
    assert (home.path / "state/streamer/foyer").stat().st_mode & 0o777 == 0o700


def test_what_it_runs_is_a_command_that_runs(home):
    """The options of the unit are those of `streamer run`; here for half a second."""
    home.install("--name", "foyer", "--log", home.path / "a.log")
    found = lines((home.units / "streamer-foyer.service").read_text())
    command = [*shlex.split(found["ExecStart"]), "--for", "0.3", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (home.path / "state/streamer/foyer/run.json").exists()
    assert (home.path / "a.log").exists()


def test_secrets_have_a_file_of_their_own(home):
    home.install("--name", "foyer")
    path = home.secrets / "foyer.env"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "STREAMER_MQTT_PASSWORD" in path.read_text()
    path.write_text("STREAMER_MQTT_PASSWORD=hush\n")
    path.chmod(0o644)
    home.install("--name", "foyer")
    assert path.read_text() == "STREAMER_MQTT_PASSWORD=hush\n", "what is in it stays"
    assert path.stat().st_mode & 0o777 == 0o600, "and nobody else reads it"
    assert f"EnvironmentFile=-{path}" in (home.units / "streamer-foyer.service").read_text()


@pytest.mark.parametrize("given", ["mqtt.password=hush", "nodes.count.api_token=hush"])
def test_a_secret_does_not_go_into_the_unit(home, given):
    result = home.install("--name", "foyer", "--set", given)
    assert result.code == 2
    assert "a secret does not belong into a unit" in result.err
    assert "hush" not in result.err
    assert not home.units.exists()


def test_the_name_of_a_file_with_a_secret_is_none(home):
    result = home.install("--set", "mqtt.password_file=/run/secrets/mqtt", "--name", "foyer", "--print")
    assert result.code == 0, result.err
    assert "mqtt.password_file=/run/secrets/mqtt" in result.out


def test_print_writes_nothing(home):
    result = home.install("--print", "--name", "foyer")
    assert result.code == 0
    assert result.out.startswith("# streamer service of ")
    assert not home.units.exists()
    assert not home.secrets.exists()


def test_another_unit_is_not_written_over(home):
    home.install("--name", "foyer")
    unit = home.units / "streamer-foyer.service"
    assert home.install("--name", "foyer", "--memory", "4G").code == 0, "of the same config it is renewed"
    assert lines(unit.read_text())["MemoryMax"] == "4G"
    other = home.path / "other.yaml"
    other.write_text(CONFIG)
    result = home.install("--name", "foyer", config=other)
    assert result.code == 2
    assert "is another unit; give this one another --name, or --force" in result.err
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    assert home.install("--name", "foyer").code == 2
    assert unit.read_text().startswith("[Service]")
    assert home.install("--name", "foyer", "--force").code == 0
    assert unit.read_text().startswith("# streamer service of ")


def test_names(home):
    result = home.install()
    assert result.code == 2
    assert "--name 'show piece': expected letters" in result.err
    assert service.name_of(service.Service("installation", host="brain")) == "installation-brain"
    assert service.name_of(service.Service("/x/foyer.yaml")) == "foyer"
    for bad in ("../x", "a/b", "", "-x", "a b", "x" * 65):
        assert home.install("--name", bad).code == 2


def test_a_config_that_ends_is_no_service(home, prompt, tiny_bundle, streamer):
    sets = ["--set", f"nodes.input.path={prompt}", "--set", "nodes.output.path=y.wav"]
    result = streamer("service", "install", "continue_file", "--bundle", tiny_bundle, *sets)
    assert result.code == 2
    assert "a service would begin it again and again" in result.err


def test_a_wrong_config_is_refused_before_anything_is_written(home):
    assert home.install("--name", "foyer", "--set", "nodes.count.frm=2").code == 2
    assert home.install("--name", "foyer", "--host", "nowhere").code == 2
    assert not home.units.exists()


def test_show_and_remove(home, streamer):
    assert "no service is installed" in streamer("service", "show").out
    home.install("--name", "foyer")
    home.install("--name", "cellar")
    (home.units / "streamer-strange.service").write_text("[Service]\n")
    assert streamer("service", "show").out.split() == ["cellar", "foyer"]
    shown = streamer("service", "show", "foyer").out
    assert (home.units / "streamer-foyer.service").read_text() in shown
    assert str(home.secrets / "foyer.env") in shown
    wanted = home.units / "default.target.wants"
    wanted.mkdir()
    (wanted / "streamer-foyer.service").symlink_to(home.units / "streamer-foyer.service")
    result = streamer("service", "remove", "foyer")
    assert result.code == 2
    assert "systemctl --user disable --now streamer-foyer.service" in result.err
    (wanted / "streamer-foyer.service").unlink()
    result = streamer("service", "remove", "foyer")
    assert result.code == 0
    assert str(home.secrets / "foyer.env") in result.out
    assert streamer("service", "show").out.split() == ["cellar"]
    assert "there is no service 'foyer'; installed: cellar" in streamer("service", "remove", "foyer").err
    assert "was not written by" in streamer("service", "remove", "strange").err


@pytest.mark.parametrize(
    ("part", "quoted"),
    [
        ("plain", "plain"),
        ("/a b/c", '"/a b/c"'),
        ("100%", "100%%"),
        ("a$HOME", "a$$HOME"),
        ('say "x"', '"say \\"x\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("", '""'),
        ("it's", '"it\'s"'),
        ("two\nlines", '"two\\nlines"'),
    ],
)
def test_arguments_as_a_unit_has_them(part, quoted):
    assert service._quoted(part) == quoted


@pytest.mark.parametrize(("version", "growing"), [(252, False), (254, True), (0, False)])
def test_the_pause_grows_where_systemd_can(home, monkeypatch, version, growing):
    monkeypatch.setattr(service, "_version", lambda: version)
    text = home.install("--print", "--name", "foyer").out
    assert ("RestartMaxDelaySec=60" in text) == growing
    assert "RestartSec=" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_to_complain_about(home):
    home.install("--name", "foyer", "--set", "session.seed=4")
    runtime = home.path / "run"
    runtime.mkdir(mode=0o700)
    done = subprocess.run(
        [shutil.which("systemd-analyze"), "--user", "verify", str(home.units / "streamer-foyer.service")],
        capture_output=True, text=True, check=False, timeout=60,
        env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
    )  # fmt: skip
    if "initialize manager" in done.stderr:
        pytest.skip(f"systemd-analyze cannot work here: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")
