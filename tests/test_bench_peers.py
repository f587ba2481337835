"""The command that measures peers: its talk with workers, its arithmetic and its table. Nothing is installed here."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.peers import __main__ as command
from benchmarks.peers import environments as envs
from benchmarks.peers.compare import Contest, Figure, Row, measured, row_of, run
from benchmarks.peers.contests import contests
from benchmarks.peers.environments import Environment, InstallError, python_of
from benchmarks.peers.report import BEGIN, END, MarkerError, replaced, table
from benchmarks.peers.talk import Worker, WorkerError

ROOT = Path(__file__).parent.parent
ABOUT = {
    "cpu": "a chip", "cores": 2, "load": 0.1, "system": "Linux", "python": "3.11", "torch": "2.13.0+cpu",
    "date": "2026-11-29", "command": "scripts/bench_peers.sh",
}  # fmt: skip
QUEUES = ["benchmarks.peers.workers.queues", "--tiny"]
STEP, HOP = Figure("step", "decode step", goal=0.9), (Figure("hop", "a hop", "us"),)


def contest(theirs=QUEUES, ours=QUEUES, environment=None, figures=HOP, **more):
    return Contest("a", "a peer", environment, theirs, ours, figures, "everything.", **more)


def module(tmp_path, monkeypatch, body):
    """A worker of a few lines, found through the path that workers get."""
    (tmp_path / "worker_of_a_test.py").write_text(body, encoding="utf8")
    monkeypatch.setattr("benchmarks.peers.talk.ROOT", tmp_path)
    return ["worker_of_a_test"]


def test_a_worker_says_what_it_is_and_measures_when_asked():
    with Worker(sys.executable, QUEUES) as worker:
        assert worker.version.startswith("Python 3")
        assert worker.about["nodes"] == 20
        first, second = worker.round(), worker.round()
    assert set(first) == set(second) == {"reference", "hop", "many", "p50", "p99"}
    assert all(value > 0 for value in first.values())


def test_what_a_library_prints_does_not_disturb_the_talk(tmp_path, monkeypatch):
    body = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from benchmarks.peers.talk import Prepared, serve\n"
        "def make(chosen):\n"
        "    print('a library is pleased to be here')\n"
        "    return Prepared('1', lambda: print('and again') or {'step': 1.0})\n"
        "serve(make)\n"
    )
    with Worker(sys.executable, module(tmp_path, monkeypatch, body)) as worker:
        assert worker.round() == {"step": 1.0}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ImportError('no such wheel')", "no such wheel"),
        ("print('hello')", "expected a line of JSON"),
        ("print('[1]')", "expected an object"),
        ("import time; time.sleep(60)", "was silent for 1 s and was ended"),
    ],
)
def test_a_worker_that_does_not_get_ready_says_why(tmp_path, monkeypatch, body, said):
    with pytest.raises(WorkerError, match=said):
        Worker(sys.executable, module(tmp_path, monkeypatch, body), limit_s=1 if "sleep" in body else 60)


def test_a_worker_that_dies_between_rounds_says_why(tmp_path, monkeypatch):
    body = """
import json, sys
print(json.dumps({"version": "1", "about": {}}), flush=True)
sys.stdin.readline()
raise MemoryError("too large")
"""
    with (
        Worker(sys.executable, module(tmp_path, monkeypatch, body)) as worker,
        pytest.raises(WorkerError, match="too large"),
    ):
        worker.round()


def test_workers_take_turns_and_the_first_round_is_thrown_away():
    asked = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def round(self):
            asked.append(self.name)
            return {"step": float(len(asked))}

    made = measured(Fake("theirs"), {"torch": Fake("ours")}, 2)
    assert asked == ["theirs", "ours"] * 3
    assert made == {"": [{"step": 3.0}, {"step": 5.0}], "torch": [{"step": 4.0}, {"step": 6.0}]}


def test_ours_over_theirs_is_a_ratio_of_ratios_round_by_round():
    """In the second round their machine is half as fast, in the third ours is; nothing of it is seen."""
    theirs = [{"reference": 1.0, "step": 2.0}, {"reference": 2.0, "step": 4.0}, {"reference": 1.0, "step": 2.0}]
    ours = [{"reference": 1.0, "step": 0.5}, {"reference": 1.0, "step": 0.5}, {"reference": 2.0, "step": 1.0}]
    row = row_of(contest(figures=[STEP]), STEP, "torch", theirs, ours)
    assert (row.theirs_x, row.ours_x, row.ratio) == (2.0, 0.5, 0.25)
    assert (row.theirs, row.ours, row.rounds, row.engine, row.goal) == (2.0, 0.5, 3, "torch", 0.9)


def test_without_a_yardstick_the_ratio_is_of_the_values():
    figure = Figure("over", "over its own batch cost", "x", 3.0, absolute=True, yardstick=False)
    row = row_of(contest(figures=[figure]), figure, "torch", [{"over": 6.0}], [{"over": 1.5}])
    assert (row.theirs_x, row.ours_x, row.ratio) == (None, None, 0.25)


def test_a_figure_that_a_worker_does_not_give_is_named():
    with pytest.raises(WorkerError, match=r"no 'step'.*hop"):
        row_of(contest(), STEP, "torch", [{"hop": 1.0}], [{"hop": 1.0}])


def test_a_contest_gives_a_row_a_figure_and_engine():
    """The engine's name takes the place of {engine}; here it is a worker's."""
    figures = [Figure("hop", "a hop", "us"), Figure("many", "with company", "us", yardstick=False)]
    rows = run(contest(figures=figures), ["torch"], Path("unused"), Path(sys.executable), tiny=True)
    assert [(row.figure, row.engine, row.failed) for row in rows] == [("a hop", "-", ""), ("with company", "-", "")]
    assert all(row.ratio > 0 and row.version.startswith("Python") for row in rows)
    both = contest(theirs=QUEUES[:1], ours=["benchmarks.peers.workers.{engine}"])
    made = run(both, ["queues", "nosuch", "ours_graph"], Path("unused"), Path(sys.executable), tiny=True)
    assert [(row.engine, bool(row.failed)) for row in made] == [
        ("queues", False), ("ours_graph", False), ("nosuch", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "environment", "said"),
    [
        (["benchmarks.peers.workers.nosuch"], None, "No module named"),
        ([*QUEUES, "--nosuch"], None, "unrecognized arguments"),
        (QUEUES, Environment("never", ("nosuch==1",), torch=False), "did not install"),
        (["benchmarks.peers.workers.plain", "--tiny"], None, "no 'hop'"),
    ],
)
def test_a_peer_that_fails_gives_one_row_that_says_why(tmp_path, monkeypatch, theirs, environment, said):
    def refuse(_command, what):
        raise InstallError(f"{what} did not install: no network in a test")

    monkeypatch.setattr(envs, "_command", refuse)
    failing = contest(theirs, environment=environment, figures=[*HOP, Figure("p50", "p50", "ms")])
    made = run(failing, ["torch"], tmp_path, Path(sys.executable))
    assert len(made) == 1
    assert said in made[0].failed
    shown = table(made, [contest()], ABOUT)
    assert "did not run" in shown
    assert shown.splitlines()[4].count("|") == shown.splitlines()[2].count("|")


def test_an_environment_is_made_once_with_our_torch_first(tmp_path, monkeypatch):
    commands = []

    def note(command, _what):
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(envs, "_command", note)
    monkeypatch.setattr(envs, "own_torch", lambda: "2.13.0+cpu")
    peer = Environment("peer", ("numpy==2.0",), ("moshi==0.2.13",))
    python = python_of(peer, tmp_path)
    assert python == tmp_path / "peer" / "bin" / "python"
    assert (tmp_path / "peer" / "constraints.txt").read_text(encoding="utf8") == "torch==2.13.0+cpu\n"
    venv, *pip, check = commands
    assert "--clear" in venv
    assert [command[-1] for command in pip] == ["torch", "numpy==2.0", "moshi==0.2.13"]
    assert "--no-deps" in pip[2]
    assert "--no-deps" not in pip[1]
    assert "2.13.0+cpu" in check  # that nothing has brought another torch along
    python_of(peer, tmp_path)
    assert len(commands) == 5  # nothing more
    python_of(Environment("peer", ("numpy==2.1",)), tmp_path)
    assert len(commands) > 5


def test_an_environment_that_half_installed_is_made_again(tmp_path, monkeypatch):
    def fail_on_pip(command, what):
        Path(tmp_path / "peer").mkdir(exist_ok=True)
        if "pip" in command:
            raise InstallError(what)

    monkeypatch.setattr(envs, "_command", fail_on_pip)
    for _ in range(2):
        with pytest.raises(InstallError):
            python_of(Environment("peer", ("nosuch==1",), torch=False), tmp_path)


def test_the_cache_follows_the_users_setting(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert envs.default_folder() == Path("/somewhere/audiolm-streamer/peers")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert envs.default_folder() == Path.home() / ".cache" / "audiolm-streamer" / "peers"


def test_the_table_shows_values_versions_machine_and_what_differs():
    rows = [
        Row("a", "a peer", "decode step", "ms", "torch", "1.2.3", 0.008, 1.1, 0.006, 0.83, 0.754, 0.9, rounds=7),
        Row("a", "a peer", "a hop", "us", "-", "1.2.3", 1e-5, None, 1.2e-6, None, 0.12, 2e-6, absolute=True),
        Row("a", "a peer", "over batch", "x", "torch", "1.2.3", 5.5, None, 1.25, None, 0.0227, 3.0, absolute=True),
    ]
    shown = table(rows, [contest()], ABOUT, ["worked out and **not measured**"])
    lines = shown.splitlines()
    assert "a chip, 2 cores" in lines[0]
    assert "torch 2.13.0+cpu" in lines[0]
    assert "`scripts/bench_peers.sh`" in lines[0]
    assert lines[4] == "| decode step | a peer 1.2.3 | 8.00 ms | 1.10x | 6.00 ms | torch | 0.83x | 0.75x | 0.9x |"
    assert lines[5] == "| a hop | a peer 1.2.3 | 10.0 us |  | 1.20 us | - |  | 0.12x | 2.00 us |"
    assert "| 5.50x |  | 1.25x | torch |  | 0.023x | 3.00x |" in lines[6]
    assert lines[-2:] == ["- **a peer**: everything.", "- worked out and **not measured**"]


def test_only_what_lies_between_the_markers_is_replaced():
    page = f"before\n{BEGIN}\nold\n{END}\nafter {{}} \\1\n"
    new = replaced(page, "| new \\1 |")
    assert new == f"before\n{BEGIN}\n| new \\1 |\n{END}\nafter {{}} \\1\n"
    assert replaced(new, "| new \\1 |") == new


@pytest.mark.parametrize("page", ["nothing", BEGIN, f"{END} {BEGIN}", f"{BEGIN} {END} {BEGIN} {END}"])
def test_a_page_without_one_place_is_refused(page):
    with pytest.raises(MarkerError, match="expected one"):
        replaced(page, "new")


def test_our_page_has_the_place():
    replaced((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf8"), "new")


def test_the_command_keeps_lines_and_writes_the_page(tmp_path, capsys):
    page, output = tmp_path / "page.md", tmp_path / "out" / "peers.jsonl"
    page.write_text(f"# Page\n{BEGIN}\n{END}\n", encoding="utf8")
    assert command.main(["queues", "--tiny", "--output", str(output), "--write", str(page)]) == 0
    about, *rows = [json.loads(line) for line in output.read_text(encoding="utf8").splitlines()]
    assert about["name"] == "machine"
    assert {"cpu", "cores", "torch", "date", "command"} <= set(about)
    assert {row["contest"] for row in rows} == {"queues"}
    assert all(not row["failed"] for row in rows)
    shown = capsys.readouterr().out
    assert shown.strip() in page.read_text(encoding="utf8")


def test_an_unknown_contest_is_refused_with_the_names():
    with pytest.raises(SystemExit, match=r"nosuch.*llama"):
        command.main(["nosuch"])


def test_ours_runs_small_and_refuses_an_engine_that_is_not_there():
    for what in (["step", "--levels", "8", "--pattern", "delay"], ["codec"], ["continuation"]):
        with Worker(sys.executable, ["benchmarks.peers.workers.ours", *what, "--tiny"]) as worker:
            assert all(value > 0 for value in worker.round().values())
    with pytest.raises(WorkerError, match="nosuch"):
        Worker(sys.executable, ["benchmarks.peers.workers.ours", "step", "--engine", "nosuch", "--tiny"])


def test_a_short_run_of_audiolm_pytorch_is_marked_as_no_long_one():
    row = Row(
        command.CONTINUATION, "audiolm-pytorch", "x", "s", more={"theirs": {"spent.0.2": 10.0, "spent.0.4": 20.0}}
    )
    (note,) = command.notes([row], full=False)
    assert "not measured" in note
    assert "350 s" in note
    assert command.notes([row], full=True) == []


def test_a_busy_machine_is_mentioned():
    assert command.busy(0.3) == []
    assert "load 5.2" in command.busy(5.2)[0]


@pytest.mark.parametrize("full", [False, True])
def test_every_contest_names_workers_that_exist(full):
    known = contests(full=full)
    assert len({one.name for one in known}) == len(known)
    for one in known:
        for words in (one.theirs, one.ours):
            assert (ROOT / f"{words[0].replace('.', '/')}.py").is_file()
        pinned = () if one.environment is None else one.environment.alone
        assert all("==" in package for package in pinned)
