"""Pictures of figures: each is drawn from its lines, small, the same again, and says what makes them when they lack."""

import json
import os

import pytest

from benchmarks import plots

MACHINE = {"name": "machine", "cpu": "Some CPU (family 1, model 2)", "cores": 2}


def figure(name, value, **more):
    return {"name": name, "value": value, "unit": "ms", "peer": value / 2, "more": more}


FIGURES = [
    MACHINE,
    *(figure(f"memory_floor.{engine}.{size}", 2.0) for engine in ("torch", "onnx") for size in ("6x384", "12x768")),
    figure("memory_floor.bandwidth", 20.0),
    *(figure(f"growth.minutes.{m:g}", 0.4, size=m, memory_mb=500.0) for m in (0.5, 1.0)),
    *(figure(f"growth.sessions.{n}", 9.0 * n, size=n, p50_ms=9.0 * n, p99_ms=12.0 * n) for n in (1, 2)),
]
PEERS = [
    MACHINE,
    {"contest": "a", "peer": "theirs 1", "figure": "decode step", "unit": "ms", "engine": "onnx", "ratio": 0.3},
    {"contest": "a", "peer": "theirs 1", "figure": "over batch", "unit": "x", "engine": "onnx", "ratio": 0.2},
    {"contest": "b", "peer": "theirs 2", "figure": "a hop", "unit": "us", "engine": "", "ratio": None, "failed": "no"},
]


def write(folder, name, lines):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf8")


def test_every_picture_is_drawn_small_and_the_same_again(tmp_path, capsys):
    write(tmp_path / "out", "bench.jsonl", FIGURES)
    write(tmp_path / "out", "peers.jsonl", PEERS)
    for into in ("a", "b"):
        assert plots.main(["--source", str(tmp_path / "out"), "--into", str(tmp_path / into)]) == 0
    assert "no figures" not in capsys.readouterr().out
    for picture in plots.PICTURES:
        data = (tmp_path / "a" / f"{picture.name}.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) < 60_000
        assert data == (tmp_path / "b" / f"{picture.name}.png").read_bytes()


def test_what_lacks_is_said_with_the_command_that_makes_it(tmp_path, capsys):
    write(tmp_path / "out", "bench.jsonl", FIGURES)
    assert plots.main(["--source", str(tmp_path / "out"), "--into", str(tmp_path / "a")]) == 0
    assert "make bench-peers makes them" in capsys.readouterr().out
    assert not (tmp_path / "a" / "peers.png").exists()
    assert plots.main(["--source", str(tmp_path / "nowhere"), "--into", str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out.count("makes them") == len(plots.PICTURES)
    assert not (tmp_path / "b").exists()


def test_the_newest_of_equal_names_counts_and_cut_lines_do_not(tmp_path):
    write(tmp_path, "b.jsonl", [figure("growth.minutes.1", 2.0), PEERS[1]])
    write(tmp_path, "a.jsonl", [figure("growth.minutes.1", 1.0)])
    with (tmp_path / "a.jsonl").open("a", encoding="utf8") as file:
        file.write('{"name": "gro')
    for age, name in enumerate(("a.jsonl", "b.jsonl")):
        os.utime(tmp_path / name, (age, age))
    found = plots.read(tmp_path)
    assert found.of("growth.minutes.")["1"]["value"] == pytest.approx(2.0)
    assert found.peers == [PEERS[1]]
