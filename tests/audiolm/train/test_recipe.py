"""Steps: done once, again when something changed, and how their failures end."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest
from safetensors import SafetensorError

from audiolm.errors import InputError
from audiolm.train.faults import StoppedError, TrainingError
from audiolm.train.recipe import Recipe, Record, Step, alone, stoppable


class Steps:
    """Three steps, each after the one before, that write a file and note that they ran, and whether afresh."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ran = folder, []
        self.settings = {name: {"recipe": {"rate": 1, "minutes": 5}} for name in ("one", "two", "three")}
        self.fault: dict[str, Exception] = {}

    def step(self, name, *needs):
        path = self.folder / f"{name}.txt"

        def run(fresh):
            self.ran.append((name, fresh))
            if name in self.fault:
                raise self.fault[name]
            path.write_text(name)
            return {"length": len(name)}

        return Step(name, f"makes {name}", self.settings[name], run, needs, (path,), 5.0)

    def recipe(self):
        steps = [self.step("one"), self.step("two", "one"), self.step("three", "two")]
        return Recipe(steps, self.folder / "steps", "audiolm train all ...")

    def run(self, until=None):
        """Names of the steps that ran; an exclamation mark where nothing of before was to be used."""
        self.ran.clear()
        self.recipe().run(until)
        return " ".join(name + "!" * fresh for name, fresh in self.ran)


@pytest.fixture
def steps(tmp_path):
    return Steps(tmp_path)


def test_each_is_done_once(steps):
    assert steps.run() == "one! two! three!"
    assert steps.run() == ""
    recipe = steps.recipe()
    assert recipe.figures("three") == {"length": 5}
    assert recipe.seconds("three") >= 0


def test_until_ends_early_and_the_rest_follows_later(steps):
    assert steps.run(until="two") == "one! two!"
    assert steps.run() == "three!"


def test_changed_settings_redo_a_step_and_what_follows(steps, caplog):
    steps.run()
    steps.settings["two"] = {"recipe": {"rate": 2, "minutes": 5}}
    with caplog.at_level("INFO", "audiolm.train"):
        assert steps.run() == "two! three!"
    assert "[2/3] two: makes two (other settings: recipe.rate 1 -> 2); up to 10 min of training left" in caplog.text
    assert "[3/3] three: makes three (what it is made from changed)" in caplog.text
    assert "[1/3] one: makes one: done before" in caplog.text


def test_a_longer_run_goes_on_and_what_follows_is_made_afresh(steps):
    steps.run()
    steps.settings["two"] = {"recipe": {"rate": 1, "minutes": 50}}
    assert steps.run() == "two three!"


def test_a_file_that_is_gone_is_made_again(steps, caplog):
    steps.run()
    (steps.folder / "two.txt").unlink()
    with caplog.at_level("INFO", "audiolm.train"):
        assert steps.run() == "two"
    assert "two.txt is gone" in caplog.text


@pytest.mark.parametrize(
    ("fault", "kind", "code", "message"),
    [
        (InputError("no such sound", path="a"), InputError, 2, "failed: no such sound"),
        (TrainingError("the loss became NaN"), TrainingError, 1, "failed: the loss became NaN"),
        (StoppedError("stopped by SIGTERM", signal.SIGTERM), StoppedError, 143, "stopped: stopped by SIGTERM"),
        (OSError(errno.ENOSPC, "No space left on device"), TrainingError, 1, "No space left on device; make room"),
        (SafetensorError("I/O error"), TrainingError, 1, "weights cannot be written .I/O error"),
        (MemoryError(), TrainingError, 1, "memory is full; try a smaller batch"),
        (RuntimeError("CUDA out of memory. Tried\nmore"), TrainingError, 1, "CUDA out of memory. Tried; try a smaller"),
    ],
)
def test_a_fault_says_which_step_and_how_to_go_on(steps, fault, kind, code, message):
    steps.fault["two"] = fault
    with pytest.raises(
        kind, match=rf"^step 2 of 3 \(two\) .*{message}.*is kept; go on with: audiolm train all"
    ) as error:
        steps.run()
    assert error.value.exit_code == code
    assert "\n" not in str(error.value)
    assert steps.recipe().missing(steps.recipe().steps[1]) == "not finished"
    steps.fault.clear()
    assert steps.run() == "two three!"


def test_a_mistake_of_ours_is_not_hidden(steps):
    steps.fault["two"] = RuntimeError("shapes do not match")
    with pytest.raises(RuntimeError, match=r"^shapes do not match$"):
        steps.run()


def test_a_damaged_record_counts_as_none(steps):
    steps.run()
    record = steps.folder / "steps" / "two.json"
    good = record.read_text()
    for damaged in ("", "{", "[]", '{"format": 1, "what": 2}', good.replace('"format": 1', '"format": 99')):
        record.write_text(damaged)
        assert steps.run() == "two!"
    assert json.loads(record.read_text())["finished"]
    assert Record.read(record).figures == {"length": 3}


def test_a_signal_ends_a_step_that_has_no_way_of_its_own(steps):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError, match="the recipe stopped by SIGTERM") as error, stoppable("the recipe"):
        os.kill(os.getpid(), signal.SIGTERM)
    assert error.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_two_cannot_work_in_one_folder(tmp_path):
    work = tmp_path / "work"
    with alone(work), pytest.raises(InputError, match="another `audiolm train` works in"), alone(work):
        pass
    with alone(work):  # the hold is over
        assert work.is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made a folder"), alone(tmp_path / "file"):
        pass
