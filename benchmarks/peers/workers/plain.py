"""The plain static-cache loop of torch as a peer of its own. Beside the yardstick it shows how well both are known."""

import argparse

import torch

from benchmarks.peers.talk import Prepared, serve
from benchmarks.peers.workers import yardstick as y


def make(chosen: argparse.Namespace) -> Prepared:
    """Two loops of the same size."""
    y.prepare()
    works = {"reference": y.plain_step(tiny=chosen.tiny), "step": y.plain_step(tiny=chosen.tiny)}
    return Prepared(f"torch {torch.__version__}", lambda: y.turns(works, tiny=chosen.tiny), {"context": y.CONTEXT})


def main() -> int:
    """Speak to the command."""
    return serve(make)


if __name__ == "__main__":
    raise SystemExit(main())
