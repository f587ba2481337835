"""What the documentation says is so: the frame format byte by byte, its tables, and the links between pages."""

import re
from pathlib import Path

import numpy as np
import pytest

from streamer import frame as frames
from streamer.frame import ALL_FLAGS, GENERATED, HEARD, KINDS, LAST, LIMITS, TURN, Frame

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "frames.md").read_text(encoding="utf8")
EXAMPLES = dict(re.findall(r"^```frame (\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
WANTED = {
    "semantic": Frame.of("semantic", [300], position=25600, session="main", seq=40, flags=GENERATED),
    "fine": Frame.of("fine", [[1, 2], [3, 1023]], position=640, session="main", seq=1, flags=HEARD),
    "audio": Frame.of("audio", np.array([0.0, 0.5, -1.0], np.float32), position=0, session="main", flags=HEARD),
    "control": Frame.control("set", position=16000, temperature=0.7, node="coarse").replace(session="main"),
    "end": Frame.end("fine", position=1280, session="main", seq=2),
}


def data(example):
    """The bytes of an example: what stands before two spaces in each line."""
    return bytes.fromhex(" ".join(re.split(r"\s{2,}", line)[0] for line in example.splitlines()))


def rows(heading):
    """The cells of the table below a heading."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_example_is_known():
    assert set(EXAMPLES) == set(WANTED)


@pytest.mark.parametrize("name", sorted(WANTED))
def test_an_example_is_the_frame_it_says(name):
    wanted = WANTED[name]
    assert data(EXAMPLES[name]) == wanted.pack()
    assert Frame.unpack(data(EXAMPLES[name])) == wanted


def test_the_first_example_has_the_length_that_is_told():
    assert f"\n{len(WANTED['semantic'].pack())} bytes." in PAGE


def test_the_table_of_kinds_is_the_code():
    table = {row[0]: row[1:] for row in rows("Kinds")}
    assert set(table) == KINDS
    for kind, (dtype, shape, rate, tick, _) in table.items():
        assert set(dtype.split(" or ")) == frames.DTYPES[kind]
        assert len(shape.split(",")) == frames.DIMENSIONS[kind]
        assert int(rate) == frames.RATES[kind]
        if tick and kind not in frames.BARE:
            size = int(tick.strip("[]").split(",")[0])
            assert size * frames.SAMPLE_RATE // int(rate) == 640


def test_the_table_of_flags_is_the_code():
    known = {"HEARD": HEARD, "GENERATED": GENERATED, "LAST": LAST, "TURN": TURN}
    assert {row[1]: int(row[0]) for row in rows("Flags")} == known
    assert HEARD | GENERATED | LAST | TURN == ALL_FLAGS


def test_the_items_stand_in_the_order_of_the_array():
    names = [row[1] for row in rows("The array")]
    assert sorted(names) == sorted(Frame.__dataclass_fields__)
    assert names[0] == "version"
    assert names[1:] == [name for name in Frame.__dataclass_fields__ if name != "version"]


def test_the_limits_are_those_of_the_code():
    largest = LIMITS.payload_bytes + 2 * LIMITS.meta_items * (LIMITS.text_bytes + 8) + 4096
    assert f"at most {largest}, and parse" in PAGE
    assert f"at most {LIMITS.session_bytes} characters" in PAGE
    assert f"At most {LIMITS.meta_items} entries; keys and texts of at most {LIMITS.text_bytes} characters" in PAGE
    assert f"at most {LIMITS.levels} levels" in PAGE
    assert f"({LIMITS.codebook} unless" in PAGE
    assert f"1 to {LIMITS.rate} " in PAGE
    assert LIMITS.payload_bytes == 1 << 20


def test_the_python_of_the_page_makes_a_frame():
    scope = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], scope)  # noqa: S102 - our own page
    made = Frame.unpack(scope["token_frame"]("main", 40, 25600, [300]))
    assert made == WANTED["semantic"]


@pytest.mark.parametrize("page", sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")))
def test_links_inside_the_project_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf8")):
        assert (path.parent / target).exists(), f"{page} points at {target}, which is not there"


@pytest.mark.parametrize("page", ["docs/architecture.md", "benchmarks/README.md"])
def test_files_that_a_page_names_exist(page):
    named = set(
        re.findall(
            r"`((?:audiolm|streamer|benchmarks|tests|configs|docs|scripts)/[\w./*]+)`", (ROOT / page).read_text()
        )
    )
    assert named
    for name in named:
        assert any(ROOT.glob(name.rstrip("/"))), f"{page} names {name}, which is not there"
