"""The commands `streamer service`: what they take. What they do is `service`."""

from __future__ import annotations

from typing import Annotated

import typer

from streamer.commands.exits import guarded
from streamer.commands.options import Bundle, Config, Host, Plugins, Sets

service = typer.Typer(
    name="service", help="A live run as a service of systemd that comes back by itself.", no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip
ServiceName = Annotated[str, typer.Argument(metavar="NAME", help="of the service, as `install` said it")]


@service.command("install")
@guarded
def service_install(
    config: Config,
    *,
    host: Host = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="of the service; default: of config and host")
    ] = None,
    sets: Sets = None,
    bundle: Bundle = None,
    plugins: Plugins = None,
    state: Annotated[
        str | None, typer.Option(metavar="DIR", help="of its snapshots; default: ~/.local/state/streamer/NAME")
    ] = None,
    log: Annotated[str | None, typer.Option(metavar="FILE", help="logs go there, too; the journal has them")] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="what it may use, as 4G or 50%; default: 80% of the machine")
    ] = None,
    only_print: Annotated[bool, typer.Option("--print", help="print the unit and write nothing")] = False,
    force: Annotated[bool, typer.Option("--force", help="write over another unit of this name")] = False,
) -> None:
    """Write a systemd unit for this user, and say which commands start it. Nothing is started."""
    from streamer.commands.service import Service
    from streamer.commands.service import install as command

    asked = Service(config, host, name, tuple(sets or ()), bundle, plugins, state, log, memory)
    command(asked, only_print=only_print, force=force)


@service.command("show")
@guarded
def service_show(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="default: list what is installed")] = None,
) -> None:
    """Print a unit that was installed and where its files are, or list them."""
    from streamer.commands.service import show as command

    command(name)


@service.command("remove")
@guarded
def service_remove(name: ServiceName) -> None:
    """Remove a unit that was installed; its snapshots and its secrets stay."""
    from streamer.commands.service import remove as command

    command(name)
