"""The files of a new plugin, as `streamer plugin new` writes them: a node that works, its test, and its packaging."""

from __future__ import annotations

from string import Template
from typing import Final

MODULE: Final = '''\
"""`$name`: a gain that fades in.

Change what `step` does; `streamer plugin check $name.py` says what it breaks.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pydantic import Field

from streamer import Frame, Node, Registry, SessionInfo, Settings, sound_of


class ${title}Settings(Settings):
    """Settings of `$name`; they stand beside its type in a config."""

    gain_db: float = Field(default=-6.0, ge=-60, le=24, description="how much louder, in decibels")
    fade_ms: float = Field(default=100.0, ge=0, le=60_000, description="from silence to that, at the beginning")


class $title(Node):
    """Makes sound louder or quieter, and fades it in."""

    type_name = "$name"
    accepts = ("audio",)
    emits = ("audio",)
    Config = ${title}Settings
    config: ${title}Settings

    def init_state(self, info: SessionInfo) -> dict[str, int]:
        """The state of one stream: what it must remember stands here, never on `self`, which all streams share."""
        return {"heard": 0}

    def step(self, frame: Frame, state: dict[str, int], input: str) -> Iterable[Frame]:
        """One frame in, one frame out. What ends the stream is a flag, LAST, of a frame that may be empty."""
        sound = sound_of(frame, self.name)
        count = state["heard"] + 1 + np.arange(len(sound))
        state["heard"] += len(sound)
        fade = np.minimum(1.0, count / max(1.0, 16 * self.config.fade_ms))
        louder = sound * (fade * 10 ** (self.config.gain_db / 20)).astype(np.float32)
        yield Frame.of("audio", louder, position=frame.position, like=frame, flags=frame.flags, meta=frame.meta)


def register(registry: Registry) -> None:
    """Add what this plugin brings. This is all that is called when it is loaded."""
    registry.add($title)
'''

TEST: Final = """\
import numpy as np
from $name import $title, register
from streamer import Build, Frame, Registry, SessionInfo, check_node


def gained(sound, **settings):
    node = $title($title.Config(**settings), Build("$name"))
    frame = Frame.of("audio", np.asarray(sound, np.float32), position=0)
    [given] = node.step(frame, node.init_state(SessionInfo()), "audio")
    return given.array


def test_it_keeps_the_contract_of_a_node():
    assert check_node($title) == []


def test_the_gain_is_that_of_the_settings():
    np.testing.assert_allclose(gained(np.ones(640), gain_db=-20, fade_ms=0), 0.1, rtol=1e-5)


def test_it_fades_in():
    sound = gained(np.ones(640), gain_db=0, fade_ms=40)
    np.testing.assert_allclose(sound[[0, 319, 639]], [1 / 640, 0.5, 1])


def test_it_registers_its_type():
    registry = Registry()
    register(registry)
    assert registry.get("$name") is $title
"""

PROJECT: Final = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "streamer-$dashed"
version = "0.1.0"
description = "A node for streamer: $name"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["audiolm-streamer", "numpy", "pydantic>=2.9,<3"]

# By this it is found wherever it is installed.
[project.entry-points."streamer.plugins"]
$name = "$name"

[tool.setuptools]
py-modules = ["$name"]

[tool.pytest.ini_options]
pythonpath = ["."]
testpaths = ["tests"]
"""

README: Final = """\
# $name

A node for `streamer`: makes sound louder or quieter, and fades it in.

```yaml
nodes:
  input: file
  $name: {type: $name, gain_db: -12}
  output: file_out
edges: [input -> $name -> output]
```

- hold it to the contract of a node: `streamer plugin check $name.py`
- run its tests: `pytest`
- use it from this folder: `streamer run CONFIG --plugins .`, or put the folder into `STREAMER_PLUGINS`
- install it, and it is found everywhere: `pip install -e .`; `streamer nodes $name` shows its settings
"""

FILES: Final = {"$name.py": MODULE, "tests/test_$name.py": TEST, "pyproject.toml": PROJECT, "README.md": README}


def files(name: str) -> dict[str, str]:
    """Path -> text of every file of a plugin of this name."""
    values = {
        "name": name,
        "title": "".join(part.capitalize() for part in name.split("_")),
        "dashed": name.replace("_", "-"),
    }
    return {Template(path).substitute(values): Template(text).substitute(values) for path, text in FILES.items()}
