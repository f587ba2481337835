"""The command line: which commands there are and what they take. What they do is in `streamer.commands`.

Everything heavy is imported by the command that needs it, so that `--help` and `schema` answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from streamer.commands.exits import guarded
from streamer.commands.options import (
    Bundle,
    Config,
    Host,
    Input,
    Json,
    Output,
    Plugins,
    PromptSeconds,
    Quiet,
    Seconds,
    Seed,
    Sets,
    number,
    whole,
)
from streamer.commands.service_cli import service

app = typer.Typer(
    name="streamer",
    help="Run graphs of sound and tokens: a sound goes in, its continuation streams out.",
    epilog="Exit codes: 0 done; 2 wrong input, config, bundle or frames; 1 another failure; 130, 143 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
@guarded
def run(
    config: Config,
    *,
    input: Input = None,  # noqa: A002 - the name of the option
    output: Output = None,
    bundle: Bundle = None,
    sets: Sets = None,
    seconds: Seconds = None,
    prompt_seconds: PromptSeconds = None,
    seed: Seed = None,
    chunk_ms: Annotated[
        float | None,
        typer.Option(parser=number, metavar="MS", help="cut the input into such chunks; never changes the result"),
    ] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="pace the sources by the wall clock")] = False,
    plugins: Plugins = None,
    host: Host = None,
    for_seconds: Annotated[
        float | None,
        typer.Option("--for", parser=number, metavar="S", help="live configs: end after so much time by the clock"),
    ] = None,
    snapshot_seconds: Annotated[
        float | None,
        typer.Option(parser=number, metavar="S", help="live configs: a snapshot so often; default 60, 0: never"),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="live configs: keep snapshots there, and go on from them after a power cut"),
    ] = None,
    forever: Annotated[
        bool, typer.Option("--forever", help="live configs: wait for devices, and never end because of a failure")
    ] = False,
    log: Annotated[
        str | None, typer.Option(metavar="FILE", help="logs go there, too: five files of 5 MB in turn")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a config: one session from its sources to its sinks; with a microphone or speaker, live until it is ended.

    Progress and logs go to standard error, the summary to standard output; that goes to standard error too when a sink
    writes sound to standard output.

    Live: on a terminal there is a view with keys (? lists them). --seconds is the length of each continuation. --json
    gives no view but one status object a second ("event": "status") and the summary as the last line ("event":
    "summary"). Ctrl-C, SIGTERM and SIGHUP finish what is being written and end with 130, 143 and 143; a second one cuts
    it off. A session that fails is begun again from its last snapshot. For months on its own: --forever --state DIR,
    or `streamer service install`.
    """
    from streamer.commands.load import Request
    from streamer.commands.run import run as command

    request = Request(
        config=config,
        sets=tuple(sets or ()),
        bundle=bundle,
        plugins=plugins,
        host=host,
        input=input,
        output=output,
        seconds=seconds,
        prompt_seconds=prompt_seconds,
        seed=seed,
        chunk_ms=chunk_ms,
        realtime=realtime,
        for_seconds=for_seconds,
        snapshot_seconds=snapshot_seconds,
        state=state,
        forever=forever,
        log=log,
    )
    command(request, quiet=quiet, as_json=as_json)


@app.command()
@guarded
def check(
    config: Config,
    *,
    bundle: Bundle = None,
    sets: Sets = None,
    plugins: Plugins = None,
    host: Host = None,
    as_json: Json = False,
) -> None:
    """Check a config, or with --host the share of one machine, without running it, and say what graph it is."""
    from streamer.commands.load import Request
    from streamer.commands.show import check as command

    command(Request(config, tuple(sets or ()), bundle, plugins, host), as_json=as_json)


@app.command()
@guarded
def graph(
    config: Config,
    *,
    svg: Annotated[str | None, typer.Option(metavar="FILE", help="draw an SVG there, instead of Mermaid")] = None,
    bundle: Bundle = None,
    sets: Sets = None,
    plugins: Plugins = None,
    host: Host = None,
) -> None:
    """Draw a config, or with --host what one machine runs of it."""
    from streamer.commands.load import Request
    from streamer.commands.show import graph as command

    command(Request(config, tuple(sets or ()), bundle, plugins, host), svg)


@app.command()
@guarded
def nodes(
    names: Annotated[list[str] | None, typer.Argument(help="only these types")] = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """List the node types: what each takes and gives, and its settings."""
    from streamer.commands.show import nodes as command

    command(names or (), plugins, as_json=as_json)


@app.command()
@guarded
def schema() -> None:
    """Print the JSON Schema of a config, for editors."""
    from streamer.commands.show import schema as command

    command()


@app.command()
@guarded
def devices(as_json: Json = False) -> None:
    """List the sound devices: inputs, outputs, channels, rates, latencies, and which are the defaults."""
    from streamer.commands.devices import devices as command

    command(as_json=as_json)


@app.command()
@guarded
def bench(
    config: Config = "continue_file",
    *,
    input: Input = None,  # noqa: A002 - the name of the option
    bundle: Bundle = None,
    sets: Sets = None,
    seconds: Seconds = None,
    seed: Seed = None,
    repeat: Annotated[int, typer.Option(parser=whole, metavar="N", help="runs; medians are given")] = 3,
    model: Annotated[
        bool, typer.Option(help="run the config; without it only the graph's own cost is measured")
    ] = True,
    plugins: Plugins = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure how fast a config runs here: real-time factor, first sample, ticks, nodes, and the cost of a hop."""
    from streamer.commands.bench import bench as command
    from streamer.commands.load import Request

    request = Request(config, tuple(sets or ()), bundle, plugins, input=input, seconds=seconds, seed=seed)
    command(request, repeat=repeat, model=model, quiet=quiet, as_json=as_json)


@app.command()
@guarded
def serve(
    *,
    bundle: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME_OR_PATH", help="a model that visitors may choose, the first unasked; may be repeated"
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="other than loopback needs a token and TLS")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(parser=whole, metavar="N", help="0: any free one")] = 8000,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="a name under which visitors reach it; may be repeated"),
    ] = None,
    token: Annotated[
        str | None, typer.Option(metavar="TEXT", help="what visitors must know; better in STREAMER_TOKEN")
    ] = None,
    certfile: Annotated[str | None, typer.Option(metavar="FILE", help="certificate chain for TLS, PEM")] = None,
    keyfile: Annotated[str | None, typer.Option(metavar="FILE", help="its private key, PEM")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="a proxy in front ends TLS and says where visitors come from")
    ] = False,
    limit: Annotated[int, typer.Option(parser=whole, metavar="N", help="visitors at once")] = 2,
    per_address: Annotated[
        int | None,
        typer.Option(
            parser=whole, metavar="N", help="of these from one address; default: all but one, on loopback all"
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(parser=number, metavar="M", help="length of a visit; default: 10, on loopback no limit"),
    ] = None,
    guidance: Annotated[
        bool, typer.Option("--guidance", help="let visitors change the guidance; stages then take twice their time")
    ] = False,
    sets: Sets = None,
    plugins: Plugins = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Serve a page with microphone and speakers, for a few visitors at once."""
    from streamer.commands.serve import Serving
    from streamer.commands.serve import serve as command

    asked = Serving(
        bundles=tuple(bundle or ()),
        host=host,
        port=port,
        names=tuple(name or ()),
        token=token,
        certfile=certfile,
        keyfile=keyfile,
        behind_proxy=behind_proxy,
        limit=limit,
        per_address=per_address,
        minutes=minutes,
        guidance=guidance,
        sets=tuple(sets or ()),
        plugins=plugins,
    )
    command(asked, quiet=quiet, as_json=as_json)


@app.command()
@guarded
def broker(
    *,
    port: Annotated[int, typer.Option(parser=whole, metavar="N", help="on loopback; 0: any free one")] = 1883,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Start a small MQTT broker on this machine, for a first try; use Mosquitto for anything real."""
    from streamer.commands.broker import broker as command

    command(port, quiet=quiet, as_json=as_json)


plugin = typer.Typer(
    name="plugin", help="Make a plugin, or hold one to the contract of a node.", no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip
app.add_typer(plugin)
app.add_typer(service)


@plugin.command("new")
@guarded
def plugin_new(
    name: Annotated[str, typer.Argument(help="of the plugin, its module and its node type")],
    into: Annotated[str, typer.Option(metavar="DIR", help="where its folder is made")] = ".",
) -> None:
    """Write a plugin that works: a node with settings, its test, pyproject.toml and README."""
    from streamer.commands.plugin import new as command

    command(name, into)


@plugin.command("check")
@guarded
def plugin_check(
    path: Annotated[str, typer.Argument(metavar="PATH_OR_MODULE", help="a folder, file or module with node types")],
    type_: Annotated[str | None, typer.Option("--type", metavar="NAME", help="only this node type")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="a setting of the node, e.g. gain_db=-12")
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold the node types of a plugin to the contract: chunking, reset, delay, NaN, ends, save and restore.

    Exit code 2 when a rule is broken. The plugin's code is run. Of sources and sinks only class and settings are looked
    at.
    """
    from streamer.commands.plugin import check as command

    command(path, type_, sets or (), as_json=as_json)


def main() -> None:
    """The program `streamer`."""
    app()
