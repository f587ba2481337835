"""A run with live ends (a microphone, a speaker): signals, how it ends, and the summary.

The sessions are in `sessions`, what is seen meanwhile in `front`; runs of files are `run`.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

import typer

from streamer import memory
from streamer.commands.account import on_air
from streamer.commands.attend import Attendant
from streamer.commands.exits import INTERRUPTED, TERMINATED, say, terminable
from streamer.commands.follow import Follower
from streamer.commands.front import Front
from streamer.commands.keeper import EVERY, Keeper
from streamer.commands.load import Request
from streamer.commands.notify import Notifier
from streamer.commands.outcome import carries_sound, files_of, peak_rss_mb
from streamer.commands.sessions import Live
from streamer.commands.state import State
from streamer.graph import Graph
from streamer.load import told
from streamer.node import Sink, Source

CODES: Final = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED, signal.SIGHUP: TERMINATED}


def is_live(graph: Graph) -> bool:
    """Whether a source or sink of a checked graph goes by the wall clock."""
    return bool(graph.plan.live(Source) or graph.plan.live(Sink))


def run(request: Request, graph: Graph, *, quiet: bool = False, as_json: bool = False) -> None:
    """Run a graph with live ends until a key, a signal, `--for` or the end of its input; then say how it went.

    Args:
        request: what was asked for.
        graph: the graph of it, built or not; it is closed.
        quiet: nothing but errors, and with `as_json` the summary.
        as_json: a status object every second and the summary as the last line, on standard output (on standard error
            when the former carries sound).

    Raises:
        StreamerError: with its exit code. typer.Exit: a signal ended it, or files were not finished in time.
    """
    to_stderr = carries_sound(graph)

    def tell(found: Mapping[str, Any]) -> None:
        typer.echo(json.dumps(found, allow_nan=False), err=to_stderr)

    with terminable(), graph, ExitStack() as stack:
        memory.keep()
        follower = Follower(graph)
        state = None if request.state is None else stack.enter_context(State(request.state))
        every = EVERY if request.snapshot_seconds is None else request.snapshot_seconds
        keeper = Keeper(graph, every=every, state=state)
        live = Live(graph, follower, keeper=keeper, forever=request.forever)
        front = Front(live, interactive=not quiet and not as_json, say=tell if as_json and not quiet else None)
        ended_by = asyncio.run(_drive(live, front, request.for_seconds))
    found = result(graph, live)
    if as_json:
        tell(found)
    elif not quiet:
        typer.echo(summary(found), err=to_stderr)
    if ended_by is not None:
        raise typer.Exit(CODES[ended_by])
    if live.spoiled:
        raise typer.Exit(1)


async def _drive(live: Live, front: Front, seconds: float | None) -> signal.Signals | None:
    """Run until the end; gives the signal that ended it, if one did."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        got = stack.enter_context(_signals(live))
        if seconds is not None:
            stack.callback(loop.call_later(seconds, live.end, "--for").cancel)
        stack.enter_context(front)
        looking = loop.create_task(front.keep_looking(), name="front")
        looking.add_done_callback(lambda _: live.end("nobody to tell"))
        attending = loop.create_task(Attendant(live, Notifier()).attend(), name="attendant")
        try:
            async with on_air(live, front.controls):
                await live.run()
        except asyncio.CancelledError:
            if live.over is None:
                raise
            say("cut off before everything was finished; what was being written is removed")
        finally:
            looking.cancel()
            attending.cancel()
        for task in (looking, attending):
            with suppress(asyncio.CancelledError):
                await task
    return got[0] if got else None


@contextmanager
def _signals(live: Live) -> Iterator[list[signal.Signals]]:
    """Inside, the first signal ends the run and the second cuts it off; after that they do what they do by default."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    got: list[signal.Signals] = []
    numbers = [number for number in CODES if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores SIGHUP

    def on_signal(number: signal.Signals) -> None:
        got.append(number)
        if len(got) == 1:
            live.end(number.name)
        elif task is not None:
            task.cancel()
            for each in numbers:
                loop.remove_signal_handler(each)

    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield got
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def result(graph: Graph, live: Live) -> dict[str, Any]:
    """What a live run did and measured, as plain data; `rtf` as `follow.Speed` has it, percentiles in ms."""
    info = live.session.info
    return {
        "event": "summary",
        "config": graph.plan.loaded.file,
        "bundle": graph.plan.loaded.config.bundle,
        "output": next(iter(files_of(graph)), None),
        "mode": info.mode,
        "seed": info.seed,
        "seconds": info.seconds,
        "ended_by": live.over,
        "reason": live.reason,
        **live.follower.summary(),
        "failed": live.failed,
        "peak_rss_mb": peak_rss_mb(),
    }


def summary(found: dict[str, Any]) -> str:
    """The same for people."""
    minutes, seconds = divmod(found["wall_s"], 60)
    long = f"{minutes:.0f} min {seconds:.0f} s" if minutes else f"{seconds:.1f} s"
    failed = f", {found['failed']} of them failed" if found["failed"] else ""
    lines = [
        f"live        {long}, ended by {found['ended_by']}; sessions {found['sessions']}{failed}",
        f"turns       {found['turns']}, {found['generated_s']:.2f} s generated",
    ]
    for name, each in found["latency_ms"].items():
        lines.append(f"latency     {name.replace('_', ' ')} p50 {each['p50']:.0f} ms, p95 {each['p95']:.0f} ms")
    if found["rtf"] is not None:
        lines.append(f"speed       real-time factor {found['rtf']:.2f}")
    if left_out := told(found["counters"]):
        lines.append(f"left out    {left_out}")
    made_up = f" ({found['concealed_samples'] / 16_000:.2f} s made up)" if found["concealed_samples"] else ""
    lost = f"dropped frames {found['dropped']}, lost samples {found['lost_samples']}"
    lines.append(f"lost        underruns {found['underruns']}{made_up}, {lost}")
    lines.append(f"memory      {found['peak_rss_mb']:.0f} MiB at most")
    if found["output"] is not None:
        lines.append(f"result      {found['output']}")
    return "\n".join(lines)
