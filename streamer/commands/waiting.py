"""Building a graph when nobody is there: a device that is not here yet is waited for, not given up.

Knows no session; once the graph is built, `sessions` goes on in the same way.
"""

from __future__ import annotations

import time
from typing import Final

import structlog

from streamer.commands.notify import Notifier
from streamer.errors import GraphError, InputError
from streamer.graph import Graph

FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 60.0
BUILDING: Final = 300.0  # seconds that building may take, for the service manager


def build(graph: Graph, *, forever: bool, limit: float | None = None, notifier: Notifier | None = None) -> Graph:
    """Build a graph; with `forever`, try again and again while something outside is missing.

    Args:
        graph: not built yet. What it has loaded of a model stays loaded between two tries.
        forever: wait, up to a minute between two tries; a signal ends the wait as it ends the program.
        limit: seconds after which it is given up all the same.
        notifier: is told what is waited for.

    Raises:
        ConfigError: at once: waiting does not mend a config. InputError, GraphError: without `forever`, or at the
            limit.
    """
    told = notifier or Notifier()
    begun, wait, said = time.monotonic(), FIRST_WAIT, ""
    while True:
        told.say(STATUS="building the graph", EXTEND_TIMEOUT_USEC=round(BUILDING * 1e6))
        try:
            return graph.build()
        except (InputError, GraphError) as error:
            left = float("inf") if limit is None else begun + limit - time.monotonic()
            if not forever or left <= 0:
                raise
            wait, text = min(wait, left), str(error).partition("\n")[0]
        if f"{wait:g} {text}" != said:
            said = f"{wait:g} {text}"
            structlog.get_logger().warning("waiting", note=text, again_in_s=wait)
        told.say(STATUS=f"waiting: {text}", EXTEND_TIMEOUT_USEC=round((wait + BUILDING) * 1e6))
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)
