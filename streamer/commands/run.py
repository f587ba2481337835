"""The command `run`: one session through a graph, its progress, and what it measured of itself."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
from typing import Any, Final

import typer

from streamer.commands import live, logs, waiting
from streamer.commands.exits import INTERRUPTED, TERMINATED, say, terminable
from streamer.commands.load import FOLLOW_INPUT, Request, graph_for
from streamer.commands.outcome import carries_sound, files_of, node_settings, peak_rss_mb, rounded
from streamer.commands.progress import Watch
from streamer.errors import ConfigError
from streamer.graph import Graph
from streamer.load import told
from streamer.runtime import run as run_sessions
from streamer.session import Session

LEAST_SNAPSHOT: Final = 0.1
MOST_SNAPSHOT: Final = 86_400.0
CODES: Final = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


def run(request: Request, *, quiet: bool = False, as_json: bool = False) -> None:
    """Run one session and say how it went; a graph with live ends runs until it is told to end, see `live`.

    Args:
        request: what was asked for.
        quiet: no progress, no logs, no summary.
        as_json: one JSON object as the last line of standard output (of standard error when that carries sound).

    Raises:
        StreamerError: with its exit code. typer.Exit: a signal ended it.
    """
    logs.configure(quiet=quiet)
    with logs.into_file(request.log, quiet=quiet):
        _run(request, quiet=quiet, as_json=as_json)


def _run(request: Request, *, quiet: bool, as_json: bool) -> None:
    with Watch(enabled=not quiet) as watch, terminable():
        graph = graph_for(request)
        if live.is_live(graph):
            _check_kept(request)
            waiting.build(graph, forever=request.forever, limit=request.for_seconds)
            session = None
        else:
            _check_not_for(request, graph)
            session = Session(graph, extra={"settings": node_settings(graph)})
            watch.follow(session)
            ended_by = play(graph, session)
    if session is None:
        live.run(request, graph, quiet=quiet, as_json=as_json)
        return
    if ended_by is not None and session.status != "ended":
        say("ended by a signal; what was being written is removed")
        raise typer.Exit(CODES[ended_by])
    found = result(request, graph, session)
    to_stderr = carries_sound(graph)
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False), err=to_stderr)
    elif not quiet:
        typer.echo(summary(request, found), err=to_stderr)
    if ended_by is not None:
        raise typer.Exit(CODES[ended_by])


def _check_not_for(request: Request, graph: Graph) -> None:
    """Refuse what only a live run has where the input ends by itself."""
    asked = {
        "--for": request.for_seconds is not None,
        "--state": request.state is not None,
        "--snapshot-seconds": request.snapshot_seconds is not None,
        "--forever": request.forever,
    }
    for name in (name for name, given in asked.items() if given):
        message = (
            f"{name}: no source or sink of this config is live (goes by the wall clock), so it ends with its input"
        )
        raise ConfigError(f"{message}; leave {name} out", file=graph.plan.loaded.file)


def _check_kept(request: Request) -> None:
    every = request.snapshot_seconds
    if every is not None and not (every == 0 or LEAST_SNAPSHOT <= every <= MOST_SNAPSHOT):
        given = f"--snapshot-seconds {every:g}: expected 0 (never), or {LEAST_SNAPSHOT:g} to {MOST_SNAPSHOT:g}"
        raise ConfigError(given)
    if request.state is not None and every == 0:
        raise ConfigError("--state keeps snapshots, and --snapshot-seconds 0 takes none; leave one of them out")


def play(graph: Graph, session: Session) -> signal.Signals | None:
    """Run a session to its end; gives the signal that ended it, if one did."""
    with graph:
        return asyncio.run(_drive(graph, session))


async def _drive(graph: Graph, session: Session) -> signal.Signals | None:
    """Run until the end or a signal.

    SIGTERM cancels: unfinished files are removed. So does SIGINT, except that a session without an end is asked to
    stop at the first one, so that what it made is kept.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    got: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        gentle = number is signal.SIGINT and session.info.seconds is None and session.status == "running" and not got
        got.append(number)
        if gentle:
            session.stop()
        elif task is not None:
            task.cancel()

    for number in CODES:
        loop.add_signal_handler(number, on_signal, number)
    try:
        await run_sessions(graph, session)
    except asyncio.CancelledError:
        if not got:
            raise
    finally:
        for number in CODES:
            loop.remove_signal_handler(number)
    return got[-1] if got else None


def output_of(request: Request, graph: Graph) -> str | None:
    """The file that holds the result; None when it went to standard output or to no file."""
    if request.output is not None:
        return None if request.output == "-" else request.output
    return next(iter(files_of(graph)), None)


def result(request: Request, graph: Graph, session: Session) -> dict[str, Any]:
    """What a session did and measured, as plain data.

    `rtf` is wall time over prompt and continuation. `first_sample_ms` goes from the last prompt tick entering the
    stages' lane to the first generated sample at the sink. `tick_ms` is the wall time from one generated audio frame
    (40 ms of sound) reaching the sink to the next; where nothing is generated, from one frame to the next.
    """
    report, metrics, info = session.report(), session.metrics, session.info
    follows = info.mode in FOLLOW_INPUT
    heard = (metrics.audio_samples - metrics.generated_samples) / 16_000
    return {
        "config": graph.plan.loaded.file,
        "output": output_of(request, graph),
        "bundle": graph.plan.loaded.config.bundle,
        "mode": info.mode,
        "seed": info.seed,
        "seconds": None if follows else info.seconds,
        "prompt_seconds": info.prompt_seconds,
        "heard_s": heard,
        "generated_s": report["generated_seconds"],
        "wall_s": round(metrics.marks["end"] - metrics.marks["start"], 4),
        "rtf": rounded(metrics.rtf, 4),
        "first_sample_ms": None if follows else rounded(metrics.first_sample_ms, 2),
        "tick_ms": _percentiles(report["tick_ms"]),
        "node_ms": {name: _percentiles(found) for name, found in report["nodes"].items()},
        "dropped": report["dropped"],
        "load": report["load"],
        "counters": report["counters"],
        "peak_rss_mb": peak_rss_mb(),
    }


def _percentiles(found: dict[str, float]) -> dict[str, float]:
    return {name: round(found[name], 3) for name in ("p50", "p95", "p99")}


def summary(request: Request, found: dict[str, Any]) -> str:
    """The same for people: where it is, how fast it was, and how to repeat it."""
    whole = found["heard_s"] + found["generated_s"]
    nowhere = "standard output" if request.host is None else f"the share of {request.host}, passed on"
    lines = [f"result        {found['output'] or nowhere}"]
    made = f", {found['generated_s']:.2f} s of it generated" if found["generated_s"] else ""
    if whole or request.host is None:
        lines.append(f"sound         {whole:.2f} s{made}")
    if found["first_sample_ms"] is not None:
        since = "the end of the prompt" if found["heard_s"] else "the start"
        lines.append(f"first sample  {found['first_sample_ms']:.0f} ms after {since}")
    if found["rtf"] is not None:
        lines.append(f"speed         real-time factor {found['rtf']:.2f} ({found['wall_s']:.1f} s for {whole:.1f} s)")
    if left_out := told(found["counters"]):
        lines.append(f"left out      {left_out}")
    if found["dropped"]:
        lines.append(f"dropped       {found['dropped']} frames")
    lines.append(f"to repeat     {shlex.join(repeat(request, found))}")
    return "\n".join(lines)


def repeat(request: Request, found: dict[str, Any]) -> list[str]:
    """The command that makes the same sound again, with everything that was left to defaults written out."""
    values = {
        "input": request.input,
        "output": request.output,
        "bundle": found["bundle"],
        "seconds": found["seconds"],
        "prompt-seconds": found["prompt_seconds"],
        "seed": found["seed"],
        "plugins": request.plugins,
        "host": request.host,
    }
    made = ["streamer", "run", request.config]
    for name, value in values.items():
        if value is not None:
            made += [f"--{name}", str(value).removesuffix(".0") if isinstance(value, float) else str(value)]
    for text in request.sets:
        made += ["--set", text]
    return made
