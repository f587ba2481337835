"""What commands from elsewhere do to a live run. How they are read is `values`; this module knows no transport."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from streamer.commands.controls import Controls
from streamer.commands.sessions import Live
from streamer.commands.values import COMMANDS, PingValues, RefusedError, read, schema
from streamer.errors import ConfigError, unknown
from streamer.graph import Graph
from streamer.node import MODES, Mode


class Remote:
    """Commands for a live run.

    Args:
        live: the run; its graph is built.
        controls: what can be set of it; keys go there, too.

    Attributes:
        modes: those that this graph can have.
        commands: those that have to do with this graph.
    """

    def __init__(self, live: Live, controls: Controls) -> None:
        self.live, self.controls = live, controls
        self.modes = modes_of(live.graph)
        taken = {each for kind in live.graph.plan.types.values() for each in kind.commands}
        if controls.temperatures:
            taken.add("set")
        self.commands = {name: one for name, one in COMMANDS.items() if one.needs is None or one.needs in taken}
        self._actions: dict[str, Callable[[Any], None]] = {
            "mode": lambda got: self._mode(got.value),
            "trigger": lambda _: self._send("trigger"),
            "listen": lambda _: self._send("listen"),
            "reset": lambda _: live.anew(),
            "seed": lambda got: live.anew(seed=got.value),
            "temperature": lambda got: controls.warm(got.value, self._stage(got.node)),
            "top_k": lambda got: controls.choose(got.value, self._stage(got.node)),
            "length": lambda got: controls.last(got.value),
            "gain": lambda got: controls.amplify(got.value),
            "mute": lambda got: controls.mute(on=got.value),
            "monitor": lambda got: controls.play_input(on=got.value),
            "ping": lambda _: None,
        }

    def do(self, name: str, payload: bytes) -> dict[str, Any]:
        """Obey one command; gives what is now, as plain data.

        Raises:
            RefusedError: it cannot be obeyed; nothing has changed.
        """
        got = read(name, payload)
        if name not in self.commands:
            needs = "samples" if COMMANDS[name].needs == "set" else f"takes {COMMANDS[name].needs!r}"
            message = f"no node of this graph {needs}, so {name!r} does nothing here"
            raise RefusedError(message, concerns=False)
        if self.live.over is not None and name != "ping":
            raise RefusedError(f"the run is ending ({self.live.over}); it takes no command {name!r}")
        self._actions[name](got)
        back = {"value": got.value} if isinstance(got, PingValues) and got.value is not None else {}
        return {**self.now(), **back}

    def now(self) -> dict[str, Any]:
        """What holds now, of all that a command can change."""
        live = self.live
        return {
            "phase": live.phase,
            "session": live.follower.sessions,
            **{name: live.setting(name) for name in ("mode", "seed")},
            **self.controls.status(),
        }

    def describe(self) -> dict[str, Any]:
        """Command -> its help, its value as JSON Schema and, where one stage can be named, their names."""
        made: dict[str, Any] = {}
        for name, one in self.commands.items():
            value = schema(one.takes) | ({"enum": self.modes} if name == "mode" else {})
            nodes = {"node": list(self.controls.temperatures)} if "node" in one.takes.model_fields else {}
            made[name] = {"help": one.help, **({"value": value} if one.takes.model_fields else {}), **nodes}
        return made

    def _mode(self, mode: str) -> None:
        if mode not in self.modes:
            raise RefusedError(unknown("mode", mode, self.modes))
        if mode != self.live.setting("mode"):
            self.live.anew(mode=mode)

    def _stage(self, node: str | None) -> str | None:
        if node is not None and node not in self.controls.temperatures:
            raise RefusedError(unknown("stage", node, self.controls.temperatures))
        return node

    def _send(self, command: str) -> None:
        if not self.live.send(command):
            note = f": {self.live.note}" if self.live.note else ""
            raise RefusedError(f"no session runs now ({self.live.phase}{note}), so {command!r} has nobody to go to")


def modes_of(graph: Graph) -> list[str]:
    """The modes that every node of a graph can have; only the one it has where no node asks for a mode."""
    own = graph.plan.loaded.config.session.mode
    asks = any(hasattr(kind, "check_mode") for kind in graph.plan.types.values())
    return [mode for mode in MODES if mode == own or (asks and _fits(graph, mode))]


def _fits(graph: Graph, mode: Mode) -> bool:
    plan = graph.plan
    try:
        for name, kind in plan.types.items():
            build = plan.builds[name]
            kind.facts(plan.settings[name], replace(build, session=replace(build.session, mode=mode)))
            check = getattr(kind, "check_mode", None)
            if check is not None:
                check(name, mode, plan.connected(name))
    except ConfigError:
        return False
    return True
