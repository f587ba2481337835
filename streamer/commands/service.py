"""A live run as a service: a systemd unit of the user, written, shown and removed here; nothing is started.

Secrets never stand in a unit, which anybody may read: they have a file of their own, which only its owner may.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from streamer.commands import live
from streamer.commands.load import Request, graph_for
from streamer.errors import ConfigError

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
SECRET: Final = re.compile(r"passw|secret|token|credential", re.IGNORECASE)
MARK: Final = "# streamer service of "
GROWING: Final = 254  # the version of systemd from which the pause before a restart may grow
MEMORY: Final = ("70%", "80%")  # of the machine: where it is slowed down, where it is ended and begun again
ENVIRONMENT: Final = """\
# Secrets of {name}: read at its start, and by nobody else. One NAME=VALUE a line.
#STREAMER_MQTT_USERNAME=
#STREAMER_MQTT_PASSWORD=
"""
UNIT: Final = """\
{mark}
[Unit]
Description=streamer: {what}
After=network-online.target sound.target pipewire.service pipewire-pulse.service pulseaudio.service
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
WorkingDirectory=%h
EnvironmentFile=-{environment}
Environment=PYTHONUNBUFFERED=1
# Not ready within this time, or not alive for so long: it is ended and begun again, from its last snapshot.
TimeoutStartSec=300
WatchdogSec=30
TimeoutStopSec=20
Restart=always
{restart}
SuccessExitStatus=143
# What grows without end is ended before the machine suffers; swapping would be heard.
MemoryHigh={high}
MemoryMax={most}
MemorySwapMax=0
TasksMax=512
LimitNOFILE=4096
LimitCORE=0
NoNewPrivileges=yes
LockPersonality=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
UMask=0077

[Install]
WantedBy=default.target
"""


@dataclass(frozen=True, slots=True)
class Service:
    """What was asked for; None: as it is by default.

    Attributes:
        config: a file, or the name of a shipped config. host: of the config's hosts, the one that runs here.
        name: of the unit, without `streamer-` and `.service`. state: the folder of its snapshots. log: a file.
        memory: what it may use, as systemd takes it (`4G`, `50%`).
    """

    config: str
    host: str | None = None
    name: str | None = None
    sets: tuple[str, ...] = ()
    bundle: str | None = None
    plugins: str | None = None
    state: str | None = None
    log: str | None = None
    memory: str | None = None


def install(asked: Service, *, only_print: bool = False, force: bool = False) -> None:
    """Write the unit and the file for its secrets, and say which commands make it run.

    Raises:
        ConfigError: the config is wrong or not live, a secret stands among the settings, or another unit has this name.
    """
    name = name_of(asked)
    check(asked)
    text = unit(asked, name)
    if only_print:
        typer.echo(text, nl=False)
        return
    path, secrets = unit_path(name), environment_path(name)
    if path.exists() and not force and _mark(path.read_text()) != _mark(text):
        raise ConfigError(f"{path} is another unit; give this one another --name, or --force to write over it")
    folder = state_folder(asked, name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_secrets(secrets, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)
    typer.echo(f"unit      {path}\nsecrets   {secrets} (mode 0600; put user and password of the broker there)")
    typer.echo(f"state     {folder}\n\nstart it now and at each start of the machine:")
    typer.echo(_commands(name, "daemon-reload", "enable --now"))
    typer.echo("  loginctl enable-linger          # without it, it starts when you log in and ends when you log out")
    typer.echo(f"look at it:\n{_commands(name, 'status')}\n  journalctl --user -u {unit_name(name)} -f")


def show(name: str | None) -> None:
    """Print a unit and where its files are; without a name, list what is installed.

    Raises:
        ConfigError: there is no such unit of ours.
    """
    if name is None:
        found = installed()
        typer.echo("\n".join(found) if found else "no service is installed; see `streamer service install --help`")
        return
    path = ours(name)
    typer.echo(path.read_text(), nl=False)
    typer.echo(
        f"\n# unit      {path}\n# secrets   {environment_path(name)}\n# look at it:\n#{_commands(name, 'status')}"
    )


def remove(name: str) -> None:
    """Remove a unit; its state and its secrets stay, and are named.

    Raises:
        ConfigError: there is no such unit of ours, or it is enabled still.
    """
    path = ours(name)
    enabled = path.parent / "default.target.wants" / path.name
    if enabled.is_symlink():
        raise ConfigError(f"{path.name} is still enabled; first:\n{_commands(name, 'disable --now')}")
    path.unlink()
    typer.echo(f"removed   {path}\n{_commands(name, 'daemon-reload')}")
    for what, left in (("secrets", environment_path(name)), ("state", default_state(name))):
        if left.exists():
            typer.echo(f"left      {left} ({what})")


# -- names and places -------------------------------------------------------------------------------------------------


def name_of(asked: Service) -> str:
    """The name of the service: as given, else of config and host.

    Raises:
        ConfigError: it cannot be part of a file name.
    """
    made = asked.name
    if made is None:
        made = "-".join(part for part in (Path(asked.config).stem, asked.host) if part)
    return _checked(made)


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r}: expected letters, digits, `-`, `_` and `.`, at most 64")
    return name


def unit_name(name: str) -> str:
    """What systemd calls it."""
    return f"streamer-{name}.service"


def unit_path(name: str) -> Path:
    """Where its unit is."""
    return _home("XDG_CONFIG_HOME", ".config") / "systemd" / "user" / unit_name(_checked(name))


def environment_path(name: str) -> Path:
    """Where its secrets are."""
    return _home("XDG_CONFIG_HOME", ".config") / "streamer" / f"{_checked(name)}.env"


def default_state(name: str) -> Path:
    """Where its snapshots are, unless another folder was given."""
    return _home("XDG_STATE_HOME", ".local/state") / "streamer" / _checked(name)


def state_folder(asked: Service, name: str) -> Path:
    """Where its snapshots are."""
    return default_state(name) if asked.state is None else Path(asked.state).expanduser().absolute()


def _home(variable: str, otherwise: str) -> Path:
    given = os.environ.get(variable, "")
    return Path(given) if given.startswith("/") else Path.home() / otherwise


def installed() -> list[str]:
    """The names of the services that were installed here."""
    folder = unit_path("x").parent
    found = sorted(folder.glob("streamer-*.service")) if folder.is_dir() else []
    return [path.stem.removeprefix("streamer-") for path in found if _mark(path.read_text())]


def ours(name: str) -> Path:
    """The unit of a name.

    Raises:
        ConfigError: there is none, or it was not written here.
    """
    path = unit_path(name)
    if not path.is_file():
        raise ConfigError(f"there is no service {name!r}; installed: {', '.join(installed()) or 'none'}")
    if not _mark(path.read_text()):
        raise ConfigError(f"{path} was not written by `streamer service install`; it is left alone")
    return path


def _mark(text: str) -> str:
    """The line that says whose unit it is; empty when it is not ours."""
    first = text.partition("\n")[0]
    return first if first.startswith(MARK) else ""


# -- what is written --------------------------------------------------------------------------------------------------


def check(asked: Service) -> None:
    """Refuse what could not run as a service.

    Raises:
        ConfigError: see `install`.
    """
    for text in asked.sets:
        if SECRET.search(text.partition("=")[0]) and not text.partition("=")[0].endswith(("_file", "_env")):
            where = environment_path(name_of(asked))
            raise ConfigError(
                f"--set {text.partition('=')[0]}: a secret does not belong into a unit; put it in {where}"
            )
    graph = graph_for(_request(asked))
    if not live.is_live(graph):
        message = "no source or sink of it is live, so it ends with its input; a service would begin it again and again"
        raise ConfigError(message, file=graph.plan.loaded.file)


def _request(asked: Service) -> Request:
    return Request(asked.config, asked.sets, asked.bundle, asked.plugins, asked.host)


def unit(asked: Service, name: str) -> str:
    """The text of the unit."""
    host = "" if asked.host is None else f", host {asked.host}"
    what = f"{Path(asked.config).name}{host}"
    growing = "RestartSec=2\nRestartSteps=6\nRestartMaxDelaySec=60" if _version() >= GROWING else "RestartSec=5"
    high, most = (asked.memory, asked.memory) if asked.memory else MEMORY
    return UNIT.format(
        mark=f"{MARK}{_place(asked.config, file=True)}{host}",
        what=what.replace("%", "%%"),
        command=" ".join(_quoted(part) for part in command(asked, name)),
        environment=str(environment_path(name)).replace("%", "%%"),
        restart=growing,
        high=high,
        most=most,
    )


def command(asked: Service, name: str) -> list[str]:
    """What the unit runs."""
    options = {
        "--host": asked.host,
        "--bundle": None if asked.bundle is None else _place(asked.bundle),
        "--plugins": None if asked.plugins is None else _place(asked.plugins),
        "--state": str(state_folder(asked, name)),
        "--log": None if asked.log is None else str(Path(asked.log).expanduser().absolute()),
    }
    made = [sys.executable, "-P", "-m", "streamer", "run", _place(asked.config, file=True), "--forever"]
    for option, value in options.items():
        made += [] if value is None else [option, value]
    for text in asked.sets:
        made += ["--set", text]
    return made


def _place(given: str, *, file: bool = False) -> str:
    """A path from the root, where it is one; else the name as it is."""
    path = Path(given).expanduser()
    return str(path.absolute()) if path.is_file() or (path.exists() and not file) else given


def _quoted(part: str) -> str:
    """One argument as a unit has it."""
    plain = part.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    if plain and not re.search(r"[\s\"';\\]", plain):
        return plain
    return '"' + plain.replace('"', '\\"').replace("\n", "\\n") + '"'


def _version() -> int:
    """The version of systemd here; 0 when there is none."""
    program = shutil.which("systemctl")
    if program is None:
        return 0
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
    found = re.match(r"systemd (\d+)", said.stdout)
    return 0 if found is None else int(found[1])


def _write_secrets(path: Path, name: str) -> None:
    """Make the file for secrets, or leave what is in it; nobody else may read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(file, 0o600)
        if os.fstat(file).st_size == 0:
            os.write(file, ENVIRONMENT.format(name=name).encode())
    finally:
        os.close(file)


def _commands(name: str, *verbs: str) -> str:
    lines = [f"  systemctl --user {verb}" + ("" if "reload" in verb else f" {unit_name(name)}") for verb in verbs]
    return "\n".join(lines)
