"""Virtual environments for the peers, in the user's cache, made once.

Each holds pinned packages and the same build of torch as the project's own environment, so that no figure differs by
the library below it. Nothing here knows what is measured in them.
"""

import hashlib
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STAMP = "installed"
_SAME_TORCH = """
import importlib.metadata, sys
found = importlib.metadata.version("torch")
sys.exit(found != sys.argv[1] and f"ERROR: torch {found} came, expected {sys.argv[1]}")
"""


class InstallError(Exception):
    """An environment could not be made; the text says which package, and pip's last words."""


@dataclass(frozen=True)
class Environment:
    """What is installed for a peer.

    Attributes:
        name: of its folder.
        packages: pinned; installed with what they depend on.
        alone: pinned; installed without what they depend on, because that would pull another torch or does not build.
        torch: whether it holds torch, of the build of the project's own environment.
    """

    name: str
    packages: Sequence[str] = ()
    alone: Sequence[str] = ()
    torch: bool = True

    def fingerprint(self) -> str:
        """Changes with what is to be installed."""
        wanted = [sys.version, own_torch() if self.torch else "", *self.packages, "alone", *self.alone]
        return hashlib.sha256("\n".join(wanted).encode()).hexdigest()


def own_torch() -> str:
    """The version of torch here, with its build: `2.13.0+cpu`."""
    return importlib.metadata.version("torch")


def default_folder() -> Path:
    """Where environments are kept: `$XDG_CACHE_HOME` or `~/.cache`, below it `audiolm-streamer/peers`."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "audiolm-streamer" / "peers"


def python_of(environment: Environment, folder: Path) -> Path:
    """The interpreter of an environment, which is made when it is not there or holds something else.

    Raises:
        InstallError: pip refused.
    """
    root = folder / environment.name
    python, stamp = root / "bin" / "python", root / STAMP
    if stamp.is_file() and stamp.read_text(encoding="utf8") == environment.fingerprint():
        return python
    say(f"making {root} (once; {'about 1 GB' if environment.torch else 'about 300 MB'})")
    _command([sys.executable, "-m", "venv", "--clear", str(root)], "venv")
    constraints = root / "constraints.txt"
    constraints.write_text(f"torch=={own_torch()}\n" if environment.torch else "", encoding="utf8")
    for arguments in _steps(environment):
        _pip(python, ["-c", str(constraints), *arguments])
    if environment.torch:
        _command([str(python), "-c", _SAME_TORCH, own_torch()], f"{environment.name}: torch")
    stamp.write_text(environment.fingerprint(), encoding="utf8")
    return python


def _steps(environment: Environment) -> list[list[str]]:
    """What pip is told, one after the other: torch first, so that nothing chooses another."""
    steps = [["torch"]] if environment.torch else []
    steps += [list(environment.packages)] if environment.packages else []
    return steps + ([["--no-deps", *environment.alone]] if environment.alone else [])


def _pip(python: Path, arguments: Sequence[str]) -> None:
    _command([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments], arguments[-1])


def _command(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # noqa: S603
    if done.returncode:
        words = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        last = next((line for line in reversed(words) if line.startswith("ERROR")), words[-1] if words else "")
        raise InstallError(f"{what} did not install: {last[:300]}")


def say(text: str) -> None:
    """Tell the user what takes so long; standard output is for figures."""
    sys.stderr.write(f"bench-peers: {text}\n")
