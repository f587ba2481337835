"""The command `bench`: how fast a config runs here, and what the graph itself costs. Nothing is asserted."""

from __future__ import annotations

import json
import statistics
import tempfile
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import typer

from streamer import config as configs
from streamer.commands import hops, logs
from streamer.commands.ends import end_of, nodes_with
from streamer.commands.exits import terminable
from streamer.commands.load import FOLLOW_INPUT, Request, graph_for, registry_for
from streamer.commands.progress import Watch
from streamer.commands.run import play, result
from streamer.errors import InputError
from streamer.node import Sink, Source
from streamer.session import Session

PROMPT_SECONDS: Final = 3.0
RATE: Final = 16_000


def bench(request: Request, *, repeat: int, model: bool, quiet: bool, as_json: bool) -> None:
    """Measure and print: one JSON line each with `as_json` (the table then goes to standard error), else a table.

    Args:
        request: the config to run; without an input a prompt is synthesized, without an output it is thrown away.
        repeat: how often the config is run; medians are given.
        model: whether the config is run at all.
        quiet: no progress.
        as_json: machine-readable records on standard output.
    """
    if not 1 <= repeat <= 1000:
        raise InputError(f"--repeat {repeat}: expected 1 to 1000")
    logs.configure(quiet=True)
    records: list[dict[str, Any]] = []
    with terminable():
        if model:
            records += _graph_records(request, repeat, quiet=quiet)
        records += hops.measure()
    if as_json:
        for record in records:
            typer.echo(json.dumps(record, allow_nan=False))
    typer.echo("\n".join(table(records)), err=as_json)


def _graph_records(request: Request, repeat: int, *, quiet: bool) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, Watch(enabled=not quiet) as watch:
        whole = _with_ends(request, Path(folder))
        runs = []
        for _ in range(repeat):
            graph = graph_for(whole)
            session = Session(graph)
            watch.follow(session)
            if play(graph, session) is not None:
                raise KeyboardInterrupt
            runs.append(result(whole, graph, session))
    return [_graph_record(runs), *_node_records(runs)]


def _with_ends(request: Request, folder: Path) -> Request:
    """The request with an input to read and an output to write, where the config has such ends."""
    registry = registry_for(request.plugins)
    loaded = configs.load(request.config, request.sets)
    made = request
    if request.input is None and nodes_with(loaded, registry, "path", Source):
        node = loaded.config.nodes[end_of(loaded, registry, "input")]
        made = replace(made, input=str(_prompt(folder, raw=node.type == "pcm_in")))
    if request.output is None and nodes_with(loaded, registry, "path", Sink):
        node = loaded.config.nodes[end_of(loaded, registry, "output")]
        made = replace(made, output=str(folder / ("out.raw" if node.type == "pcm_out" else "out.wav")))
    if loaded.config.session.mode == "resynthesize" and loaded.config.session.voice is None:
        made = replace(made, sets=(*made.sets, f"session.voice={json.dumps(str(_prompt(folder, raw=False)))}"))
    return made


def _prompt(folder: Path, *, raw: bool) -> Path:
    """Three seconds of a broken chord with a little noise: sound enough to keep every part busy."""
    rng = np.random.default_rng(0)
    time = np.arange(round(PROMPT_SECONDS * RATE)) / RATE
    notes = 220 * 2 ** (np.array([0, 4, 7, 12])[(4 * time).astype(int) % 4] / 12)
    sound = 0.2 * np.sin(2 * np.pi * np.cumsum(notes) / RATE) * np.exp(-3 * (time % 0.25))
    samples = np.round(32767 * (sound + 0.001 * rng.standard_normal(len(time)))).astype("<i2")
    path = folder / ("prompt.raw" if raw else "prompt.wav")
    if raw:
        path.write_bytes(samples.tobytes())
        return path
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return path


def _graph_record(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians of some runs; what is the same in all is taken from the last."""
    last = runs[-1]
    record = {"bench": "graph", "runs": len(runs)}
    record |= {key: last[key] for key in ("config", "bundle", "mode", "seed", "heard_s", "generated_s")}
    for key in ("rtf", "first_sample_ms"):
        values = [run[key] for run in runs if run[key] is not None]
        record[key] = round(statistics.median(values), 4) if values else None
    record["tick_ms"] = _median(runs, "tick_ms")
    return record | {"dropped": sum(run["dropped"] for run in runs), "peak_rss_mb": last["peak_rss_mb"]}


def _median(runs: list[dict[str, Any]], key: str) -> dict[str, float]:
    return {name: round(statistics.median(run[key][name] for run in runs), 3) for name in ("p50", "p95", "p99")}


def _node_records(runs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for name in runs[-1]["node_ms"]:
        one = [{"ms": run["node_ms"][name]} for run in runs]
        yield {"bench": "node", "node": name, "step_ms": _median(one, "ms")}


def table(records: list[dict[str, Any]]) -> Iterator[str]:
    """The records for people."""
    for record in records:
        if record["bench"] == "graph":
            length = record["heard_s"] + record["generated_s"]
            yield f"{record['config']}, bundle {record['bundle']}, {length:.2f} s of sound, {record['runs']} run(s)"
            yield f"  real-time factor   {record['rtf']}"
            if record["mode"] not in FOLLOW_INPUT:
                yield f"  first sample       {record['first_sample_ms']} ms"
            yield f"  tick (40 ms)       {_spread(record['tick_ms'])}"
            yield f"  memory             {record['peak_rss_mb']} MiB"
        elif record["bench"] == "node":
            yield f"  {record['node']:<18} {_spread(record['step_ms'])} a step"
        elif record["bench"] == "hop":
            yield f"hop inside a lane    {record['us']} us"
        else:
            yield f"six packed nodes     {_spread(record['ms'])}"


def _spread(found: dict[str, float]) -> str:
    return f"p50 {found['p50']}, p95 {found['p95']}, p99 {found['p99']} ms"
