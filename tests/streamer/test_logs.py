"""Logs: on standard error and into files in turn, with what is secret left out."""

import io
import logging
import re

import lasting_ends
import pytest
import structlog

from streamer import ConfigError
from streamer.commands import logs

CONFIG = "nodes: {ears: ticker, count: counter, mouth: mouth}\nedges: [ears -> count -> mouth]"


@pytest.fixture
def log(tmp_path):
    """The file, and its lines."""
    path = tmp_path / "logs" / "a.log"
    return path, lambda: path.read_text().splitlines()


def say(**values):
    structlog.get_logger().info("event", **values)


def test_a_file_gets_logfmt_while_a_screen_gets_its_own(log):
    path, lines = log
    screen = io.StringIO()
    logs.configure()
    with logs.into_file(str(path)):
        say(note="on standard error", n=1)
        logs.configure(into=screen)
        say(note="under a view", n=2)
        logs.configure()
        say(note="again", n=3)
    say(note="afterwards", n=4)
    assert [re.sub(r"^time=\d{4}-\d\d-\d\dT[\d:.]+Z ", "", line) for line in lines()] == [
        'level=info event=event note="on standard error" n=1',
        'level=info event=event note="under a view" n=2',
        "level=info event=event note=again n=3",
    ]
    assert "under a view" in screen.getvalue()
    assert "\x1b" not in screen.getvalue()


def test_quiet_is_for_standard_error(log, capsys):
    path, lines = log
    with logs.into_file(str(path), quiet=True):
        say(note="quiet")
        structlog.get_logger().debug("event", note="nobody wants this")
        structlog.get_logger().error("event", note="loud")
    said = capsys.readouterr().err
    assert "quiet" not in said
    assert "loud" in said
    assert [line.rpartition("=")[2] for line in lines()] == ["quiet", "loud"]


def test_files_are_renewed_and_only_five_are_kept(log, monkeypatch):
    path, lines = log
    monkeypatch.setattr(logs, "FILE_BYTES", 2000)
    with logs.into_file(str(path)):
        for number in range(300):
            say(number=number)
    files = sorted(each.name for each in path.parent.iterdir())
    assert files == ["a.log", "a.log.1", "a.log.2", "a.log.3", "a.log.4"]
    assert all(each.stat().st_size <= 2000 for each in path.parent.iterdir())
    assert lines()[-1].endswith("number=299")


def test_it_goes_on_where_it_was(log):
    path, lines = log
    for number in (1, 2):
        with logs.into_file(str(path)):
            say(number=number)
    assert len(lines()) == 2


def test_a_line_stays_a_line(log):
    path, lines = log
    with logs.into_file(str(path)):
        say(note='two\nlines "and" a=b \\')
    assert len(lines()) == 1
    assert lines()[0].endswith('note="two\\nlines \\"and\\" a=b \\\\"')


def test_secrets_are_left_out(log, capsys, monkeypatch):
    path, lines = log
    monkeypatch.setenv("STREAMER_MQTT_PASSWORD", "open sesame")
    monkeypatch.setenv("STREAMER_TOKEN", "abc")  # too short to be looked for inside a text
    with logs.into_file(str(path)):
        say(**dict.fromkeys(("password", "mqtt_token"), "hush"), note="refused: open sesame at abc", n=1)
    for text in ("\n".join(lines()), capsys.readouterr().err):
        assert "hush" not in text
        assert "sesame" not in text
        assert 'note="refused: (hidden) at abc"' in text


def test_a_disk_that_is_full_is_said_once(log, capsys, monkeypatch):
    path, lines = log
    emit, full = logging.StreamHandler.emit, [True]

    def failing(self, record):
        try:
            write(record)
        except OSError:
            self.handleError(record)
        else:
            emit(self, record)

    def write(record):
        if full[0]:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(logging.StreamHandler, "emit", failing)
    with logs.into_file(str(path)):
        for _ in range(3):
            say(note="lost")
        full[0] = False
        say(note="kept")
    assert capsys.readouterr().err.count("cannot be written: [Errno 28]") == 1
    assert [line.rpartition("=")[2] for line in lines()] == ["kept"]


def test_a_file_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="give a file that can be written"), logs.into_file(str(tmp_path / "file/x")):
        pass


def test_a_run_with_a_log(streamer, tmp_path):
    (tmp_path / "live.yaml").write_text(CONFIG)
    options = ["--set", "nodes.ears.fail_sessions=[1]", "--forever", "--for", "1.0", "--quiet"]
    config = tmp_path / "live.yaml"
    result = streamer("run", config, "--plugins", lasting_ends.__file__, *options, "--log", tmp_path / "a.log")
    assert result.code == 0, result.err
    text = (tmp_path / "a.log").read_text()
    assert re.search(r"^time=\S+ level=error event=session .*caught fire", text, re.MULTILINE)
    assert "begun=2" in text
