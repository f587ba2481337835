"""Where on a broker things are: the names of topics, made and read in one place.

Pure text; knows no connection and no frame. `Topics(prefix, instance)` names what one instance publishes and takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from streamer.errors import ConfigError

STATUS: Final = "status"
DESCRIPTION: Final = "description"
METRICS: Final = "metrics"
CONTROL: Final = "control"
STREAM: Final = "stream"
RECEIPT: Final = "receipt"
PROBE: Final = "probe"
EVERYBODY: Final = "all"  # the instance that stands for all of them in a control topic
MAX_TOPIC: Final = 1024  # bytes; brokers take more, and nobody wants to type that

SEGMENT: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
PREFIX: Final = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")


def segment(text: str, what: str = "a topic segment") -> str:
    """The text itself, if it can stand between two slashes of a topic.

    Raises:
        ConfigError: it holds anything but letters, digits, `-`, `_` and `.`, or has not 1 to 64 of them.
    """
    if not SEGMENT.fullmatch(text):
        raise ConfigError(f"{what} {text!r}: expected 1 to 64 letters, digits, `-`, `_` or `.`")
    return text


def as_segment(text: str) -> str:
    """Any text as a segment: what cannot stand there becomes `-`. For names of configs and machines."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:64].strip("-") or "main"


def check_topic(topic: str, *, pattern: bool = False) -> str:
    """The topic itself, if a message can be published to it (or, with `pattern`, if it can be subscribed to).

    Raises:
        ConfigError: empty, too long, with a zero character, at `$SYS`, or with misplaced wildcards.
    """
    if not topic or "\0" in topic or len(topic.encode()) > MAX_TOPIC:
        raise ConfigError(f"topic {topic[:80]!r}: expected 1 to {MAX_TOPIC} bytes without a zero character")
    if not pattern and ("+" in topic or "#" in topic or topic.startswith("$")):
        raise ConfigError(
            f"topic {topic!r}: `+` and `#` are wildcards and `$` is the broker's; nothing is published so"
        )
    levels = topic.split("/")
    misplaced = any("+" in level and level != "+" for level in levels) or any("#" in level for level in levels[:-1])
    if pattern and (misplaced or ("#" in levels[-1] and levels[-1] != "#")):
        raise ConfigError(f"topic filter {topic!r}: `+` stands for one whole level, `#` for all at the end")
    return topic


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a subscription to `topic_filter` (shared ones as well) gets what is published to `topic`."""
    levels = topic_filter.split("/")
    if levels[0] == "$share":
        levels = levels[2:]
    names = topic.split("/")
    if topic.startswith("$") and levels[0] in ("+", "#"):
        return False
    for i, level in enumerate(levels):
        if level == "#":
            return True
        if i >= len(names) or level not in ("+", names[i]):
            return False
    return len(levels) == len(names)


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one instance.

    >>> Topics("streamer", "brain").stream("decoder", "audio")
    'streamer/brain/stream/decoder/audio'

    Args:
        prefix: what all topics of an installation begin with; may hold slashes.
        instance: name of this program on the broker, one segment.
        control_prefix: what control topics begin with; None: `prefix`. Its own prefix can have its own rights.
    """

    prefix: str
    instance: str
    control_prefix: str | None = None

    def __post_init__(self) -> None:
        for name in filter(None, (self.prefix, self.control_prefix)):
            if not PREFIX.fullmatch(name) or len(name) > 256:
                raise ConfigError(f"prefix {name!r}: expected names of letters, digits, `-_.`, with `/` between them")
        segment(self.instance, "instance")
        if self.instance == EVERYBODY:
            raise ConfigError(f"instance {EVERYBODY!r} stands for all instances; choose another name")

    def of(self, instance: str) -> Topics:
        """The topics of another instance of the same installation."""
        return Topics(self.prefix, instance, self.control_prefix)

    @property
    def root(self) -> str:
        """What all topics of this instance begin with, without the slash."""
        return f"{self.prefix}/{self.instance}"

    @property
    def status(self) -> str:
        """Retained JSON: whether it is online, since when and why."""
        return f"{self.root}/{STATUS}"

    @property
    def description(self) -> str:
        """Retained JSON: what it is."""
        return f"{self.root}/{DESCRIPTION}"

    @property
    def metrics(self) -> str:
        """JSON every few seconds: what it measures."""
        return f"{self.root}/{METRICS}"

    @property
    def probe(self) -> str:
        """Where it sends something to itself."""
        return f"{self.root}/{PROBE}"

    def control(self, command: str) -> str:
        """Where this instance takes a command; `+` for all commands."""
        return f"{self.control_prefix or self.prefix}/{self.instance}/{CONTROL}/{command}"

    def control_all(self, command: str) -> str:
        """Where all instances take a command; `+` for all commands."""
        return f"{self.control_prefix or self.prefix}/{EVERYBODY}/{CONTROL}/{command}"

    def command(self, topic: str) -> str | None:
        """The command that a message on `topic` names for this instance; None when it is no control topic of it."""
        head, _, name = topic.rpartition("/")
        ours = (self.control("").rstrip("/"), self.control_all("").rstrip("/"))
        return name if head in ours and SEGMENT.fullmatch(name) else None

    def stream(self, node: str, kind: str) -> str:
        """Frames of one kind that one node gives."""
        return f"{self.root}/{STREAM}/{segment(node, 'node')}/{segment(kind, 'kind')}"

    def receipt(self, stream: str) -> str:
        """Where this instance, as a reader, says how much of a stream it has got.

        The part `stream` of the topic is left out; a topic of another scheme is taken as a whole.
        """
        inner = stream.removeprefix(self.prefix + "/").replace(f"/{STREAM}/", "/", 1)
        return f"{self.root}/{RECEIPT}/{inner}"

    def fill(self, template: str, *, node: str, kind: str = "") -> str:
        """A topic from a template: `{prefix}`, `{instance}`, `{node}` and `{kind}` are filled in.

        Raises:
            ConfigError: another placeholder, or no topic results.
        """
        names = {"prefix": self.prefix, "instance": self.instance, "node": node, "kind": kind}
        for found in re.findall(r"\{([^{}]*)\}", template):
            if found not in names:
                raise ConfigError(f"topic {template!r}: unknown placeholder {found!r}; known: {', '.join(names)}")
        return check_topic(re.sub(r"\{([^{}]*)\}", lambda match: names[match[1]], template))
