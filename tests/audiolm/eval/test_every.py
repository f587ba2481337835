"""Every measure at once: goes on where one fails, says so at the end, and shares the work."""

import contextlib
import io
import json
import sys

import pytest

from audiolm import cli
from audiolm.commands import every, plan
from audiolm.errors import InputError
from audiolm.eval import own
from audiolm.eval.report import Goal, Section


def call(*arguments):
    """The command in this process; what it said, and its progress."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        cli.eval_app([str(each) for each in arguments], standalone_mode=False)
    return out.getvalue(), err.getvalue()


def taking(name, fault=None):
    """A step's function: a section that counts the corpora, or an error."""

    def make(**_):
        if fault:
            raise fault
        return Section(name, f"The {name}", figures={"one": 1.0})

    return lambda job: job.bench.measure(name, make, again=job.again, corpora=[each.name for each in job.bench.held])


@pytest.fixture
def steps(monkeypatch):
    """`steps(...)`: these are all measures there are."""

    def use(*made):
        monkeypatch.setattr(every, "STEPS", made)

    return use


def sections(folder):
    return json.loads((folder / "report.json").read_text())["sections"]


def test_one_failure_is_told_and_the_others_are_taken(steps, tiny_bundle, music_folder, tmp_path):
    steps(
        plan.Step("drift", plan.BOTH, taking("drift", InputError("no sound at all; give some"))),
        plan.Step("plots", plan.BOTH, taking("plots")),
    )
    with pytest.raises(InputError, match="1 of 2 measures could not be taken: drift; the report in"):
        call("all", tiny_bundle, "--data", music_folder, "--out", tmp_path)
    found = sections(tmp_path)
    assert found["drift"]["failed"] == "no sound at all; give some"
    assert found["plots"]["figures"] == {"one": 1.0}
    assert "Could not be measured: no sound at all; give some" in (tmp_path / "report.md").read_text()
    steps(plan.Step("drift", plan.BOTH, taking("drift")), plan.Step("plots", plan.BOTH, taking("plots")))
    _, progress = call("all", tiny_bundle, "--data", music_folder, "--out", tmp_path)
    assert "[1/2] drift, 0:" in progress
    assert progress.count("in the report already") == 1
    assert "failed" not in sections(tmp_path)["drift"]


def test_an_error_of_the_program_is_raised_when_the_others_are_done(steps, tiny_bundle, music_folder, tmp_path):
    fault = taking("drift", ZeroDivisionError("by nought"))
    steps(plan.Step("drift", plan.BOTH, fault), plan.Step("plots", plan.BOTH, taking("plots")))
    with pytest.raises(ZeroDivisionError, match="by nought"):
        call("all", tiny_bundle, "--data", music_folder, "--out", tmp_path)
    assert list(sections(tmp_path)) == ["drift", "plots"]


def test_a_measure_gets_the_kind_of_sound_that_it_takes(steps, tiny_bundle, music_folder, speech_folder, tmp_path):
    steps(
        plan.Step("drift", (plan.SPEECH,), taking("drift")),
        plan.Step("plots", plan.BOTH, taking("plots")),
    )
    call("all", "--bundle", tiny_bundle, "--data", music_folder, "--data", speech_folder, "--out", tmp_path / "both")
    found = sections(tmp_path / "both")
    assert found["drift"]["settings"]["corpora"] == ["speech_dev"]
    assert found["plots"]["settings"]["corpora"] == ["music_dev", "speech_dev"]
    call("all", tiny_bundle, "--data", music_folder, "--out", tmp_path / "one")
    assert list(sections(tmp_path / "one")) == ["plots"]


def test_the_bundle_is_given_once_and_steps_are_known(steps, tiny_bundle, music_folder, tmp_path):
    for arguments in ([], [tiny_bundle, "--bundle", tiny_bundle]):
        with pytest.raises(InputError, match="give the bundle once"):
            call("all", *arguments, "--data", music_folder, "--out", tmp_path)
    steps(plan.Step("drift", plan.BOTH, taking("drift")), plan.Step("plots", plan.BOTH, taking("plots")))
    with pytest.raises(InputError, match="unknown measure 'drif'; expected some of drift, plots"):
        call("all", tiny_bundle, "--steps", "drif", "--out", tmp_path)
    call("all", tiny_bundle, "--data", music_folder, "--steps", "plots", "--out", tmp_path)
    call("all", tiny_bundle, "--data", music_folder, "--without", "drift", "--out", tmp_path)
    assert list(sections(tmp_path)) == ["plots"]


def test_no_data_is_the_set_of_our_own_and_no_goal_is_judged(steps, monkeypatch, tiny_bundle, tmp_path):
    monkeypatch.setattr(own, "PIECE_SECONDS", 4.0)
    monkeypatch.setattr(own, "kind_of", lambda *_, **__: "music")

    def take(job):
        goals = [Goal("good", 1.0, above=0.0)]
        job.bench.measure("drift", lambda **_: Section("drift", "Drift", goals=goals), again=job.again)

    steps(plan.Step("drift", plan.BOTH, take))
    call("all", tiny_bundle, "--out", tmp_path)
    found = sections(tmp_path)["drift"]
    assert found["settings"]["data"] == [f"own_music-{own.VERSION}"]
    assert found["goals"] == []
    assert found["notes"][0].startswith("Measured on the self-contained set (synthesized pieces)")
    assert "--data" not in found["command"]


def test_other_codecs_come_to_the_step_that_takes_them(steps, monkeypatch, tiny_bundle, music_folder, tmp_path):
    seen = []
    monkeypatch.setattr(plan, "take_reconstruction", lambda *given, **_: seen.append(given[-1]))
    monkeypatch.setattr(every, "_end", lambda *_: None)
    steps(plan.Step("reconstruction", plan.BOTH, plan._reconstruction))
    data = ["--data", music_folder, "--out", tmp_path]
    call("all", tiny_bundle, *data, "--beside", "lyra=a", "--beside", "encodec=b")
    assert seen == [["lyra=a", "encodec=b"]]


def test_another_process_is_called_as_this_one_was(monkeypatch, tmp_path):
    calls = []

    def beside(context, *_):
        calls.append(every._call(context, plan.STEPS[:2]))
        return every.Found({}, [])

    monkeypatch.setattr(every, "_beside", beside)
    monkeypatch.setattr(every, "_end", lambda *_: None)
    monkeypatch.setattr(every.Bench, "open", lambda *_: every.Bench(None, [Speech], tmp_path, 0, "x"))
    call("all", "--bundle", "x", "--data", "a=speech", "--data", "b=music", "--again", "--jobs", 2)
    words = calls[0][calls[0].index("all") + 1 :]
    at = words.index("--data")
    assert words[at : at + 4] == ["--data", "a=speech", "--data", "b=music"]
    assert words[words.index("--bundle") + 1] == "x"
    assert words[words.index("--steps") + 1] == ",".join(step.name for step in plan.STEPS[:2])
    assert words[words.index("--jobs") + 1] == "1"
    assert "--again" in words
    assert "--quick" not in words


def test_two_processes_share_the_work_and_the_report(monkeypatch, tiny_bundle, music_folder, tmp_path):
    monkeypatch.setattr(every, "STEPS", [step for step in plan.STEPS if step.name in {"likelihood", "semantic"}])
    data = ["--data", music_folder, "--out", tmp_path]
    _, progress = call("all", tiny_bundle, *data, "--steps", "likelihood,semantic", "--jobs", 2)
    assert progress.count("[1/1]") == 1  # the other one says so in its own process
    assert list(sections(tmp_path)) == ["semantic", "likelihood"]
    assert "2 measures, 0 of them failed" in progress
    assert (tmp_path / "report.html").exists()


def test_a_process_that_dies_is_told(monkeypatch, steps, tiny_bundle, music_folder, tmp_path):
    steps(plan.Step("drift", plan.BOTH, taking("drift")), plan.Step("plots", plan.BOTH, taking("plots")))
    monkeypatch.setattr(every, "_call", lambda *_: [sys.executable, "-c", "raise SystemExit(7)"])
    with pytest.raises(InputError, match="1 of 2 measures could not be taken: plots"):
        call("all", tiny_bundle, "--data", music_folder, "--out", tmp_path, "--jobs", 2)
    assert sections(tmp_path)["plots"]["failed"] == "its process ended with code 7"


class Speech:
    kind, name = "speech", "s"
