"""Two processes over gloo on this CPU, started by torchrun: the numbers of one process on the same global batch."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from material import made_tokens

from audiolm.errors import ConfigError, InputError
from audiolm.train import device
from audiolm.train.device import Compute
from audiolm.train.loop import Run
from audiolm.train.stages import StageRecipe, train_stage

pytest.importorskip("accelerate")
HERE = Path(__file__).parent
ROOT = HERE.parents[2]

# What each process runs: a part of the work by name, in a folder.
WORKER = """
import json, logging, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[3])
from material import made_tokens
from audiolm.errors import InputError
from audiolm.tiny import tiny_parts
from audiolm.train.loop import Learner, Run, StoppedError, TrainingError
from audiolm.train.stages import StageRecipe, train_stage

what, out = sys.argv[1], Path(sys.argv[2])

def stage(steps):
    tokens, spec = made_tokens(3, 80), tiny_parts().stages["fine"].spec
    recipe = StageRecipe(minutes=1000, batch=4, crop=1.6, rate=5e-3, steps=steps, depth_share=0.5, gaps=0.1)
    losses, tick = [], Run.tick
    def spy(run, values):
        tick(run, values)
        losses.append(values["nll"])
        if out.name == "slow":
            import time
            time.sleep(0.05)
            (out / "on").touch()
    Run.tick = spy
    try:
        trained = train_stage(spec, tokens, tokens, out, recipe, coarse_levels=2, precision="no")
    except StoppedError as error:
        (out / f"stopped.{error.number}.{len(losses)}").touch()
        raise SystemExit(error.exit_code)
    return {"losses": losses, "sums": [float(w.detach().double().sum()) for w in trained.parameters()]}

def helpers():
    with Run(out, "helpers", None, steps=3) as run:
        one = torch.arange(8.0).view(4, 2)
        mine = run.share(one)
        mask = torch.tensor([1, 1, 0, 1]) > 0  # counts differ between the processes
        weight = torch.nn.Parameter(torch.tensor(float(run.index + 1)))
        unused = torch.nn.Parameter(torch.ones(1))
        learner = Learner(run, [weight, unused], 0.1, betas=(0.9, 0.99))
        first = float(weight.detach())
        loss = run.mean(weight * mine[:, 0], run.share(mask))
        value = float(loss.detach())
        torch.autograd.backward(loss)
        run.average_gradients([weight, unused])
        found = {
            "processes": run.processes, "mine": mine.tolist(), "sum": run.sum_over_processes(mine.sum()).item(),
            "gather": run.gather(mine).tolist(), "first": first, "loss": run.averages({"x": value})["x"],
            "gradient": weight.grad.item(), "unused": unused.grad is None,
            "same": run.same(torch.tensor([run.index + 5])).item(),
        }
        try:
            run.share(one[:3])
        except InputError as error:
            found["odd"] = str(error)
        for _ in run:
            bad = weight * (float("nan") if run.index and run.step == 1 else 1.0)
            try:
                learner.step(bad, {})
            except TrainingError as error:
                found["nan"] = str(error)
                run.finish("all of us")
    return found

def apart():
    place = out if __import__("os").environ["RANK"] == "0" else out / "elsewhere"
    weight = torch.nn.Linear(1, 1)
    with Run(place, "apart", None, steps=2) as run:
        run.step = run.index  # as if only one of them saw the state
        try:
            run.resume({"weight": weight})
        except TrainingError as error:
            run._parts = {}
            return str(error)

found = stage(100_000) if what == "slow" else {"helpers": helpers(), "apart": apart(), "stage": stage(5)}
rank = __import__("os").environ.get("RANK", "0")
(out / f"found.{rank}.json").write_text(json.dumps(found))
"""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start(what, out):
    """Two workers under torchrun."""
    script = out.parent / "worker.py"
    script.write_text(WORKER)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    clean = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    env = clean | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(script), what, str(out), str(HERE)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two processes found, and the folder of their run."""
    out = tmp_path_factory.mktemp("pair") / "two"
    out.mkdir()
    process = start("all", out)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 0, said[-3000:]
    return out, [json.loads((out / f"found.{i}.json").read_text()) for i in range(2)]


@pytest.mark.slow
def test_two_processes_compute_what_one_does(pair, specs, tmp_path, monkeypatch):
    tokens, losses, tick = made_tokens(3, 80), [], Run.tick
    monkeypatch.setattr(Run, "tick", lambda run, values: (tick(run, values), losses.append(values["nll"])))
    recipe = StageRecipe(minutes=1000, batch=4, crop=1.6, rate=5e-3, steps=5, depth_share=0.5, gaps=0.1)
    one = train_stage(specs["fine"], tokens, tokens, tmp_path, recipe, coarse_levels=2, precision="no")
    out, both = pair
    two, other = (found["stage"] for found in both)
    assert two == other
    assert len(losses) == 5
    torch.testing.assert_close(torch.tensor(two["losses"]), torch.tensor(losses), atol=1e-5, rtol=0)
    sums = torch.tensor([float(weight.detach().double().sum()) for weight in one.parameters()])
    torch.testing.assert_close(torch.tensor(two["sums"]), sums, atol=1e-3, rtol=1e-4)
    logs = [(folder / "fine.jsonl").read_text().splitlines() for folder in (out, tmp_path)]
    assert len(logs[0]) == len(logs[1])  # the main process alone writes
    looks = [json.loads(next(line for line in log if "dev_nll" in line))["dev_nll"] for log in logs]
    assert abs(looks[0] - looks[1]) < 1e-3


@pytest.mark.slow
def test_what_processes_say_to_each_other(pair):
    first, second = (found["helpers"] for found in pair[1])
    assert (first.pop("mine"), second.pop("mine")) == ([[0, 1], [2, 3]], [[4, 5], [6, 7]])
    assert first == second
    assert first["processes"] == 2
    assert first["sum"] == 28
    assert first["gather"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert first["first"] == 1  # the main process's weights
    assert first["same"] == 5
    assert first["loss"] == pytest.approx((0 + 2 + 6) / 3)
    assert first["gradient"] == pytest.approx((0 + 2 + 6) / 3)
    assert first["unused"]
    assert "a batch of 3 cannot be shared by 2 processes; use a multiple of 2, such as 4" in first["odd"]
    assert "NaN or infinite at step 1" in first["nan"]  # of the second process alone, yet all end


@pytest.mark.slow
def test_processes_that_see_different_states_say_so(pair):
    said = [found["apart"] for found in pair[1]]
    assert said[0].startswith("the processes of apart resume at steps 0 to 1; all must see the same")
    assert "share the folder" in said[1]


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all(tmp_path):
    out = tmp_path / "slow"
    out.mkdir()
    process = start("slow", out)
    end = time.monotonic() + 60
    while not (out / "on").exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # torchrun hands it on
    said, _ = process.communicate(timeout=60)
    stops = [path.name for path in out.glob("stopped.*")]
    assert len(stops) == 1, said[-3000:]  # both after the same number of steps
    assert stops[0].startswith(f"stopped.{int(signal.SIGTERM)}.")
    assert (out / "fine.state.safetensors").is_file()


def test_one_process_needs_no_accelerate_and_several_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    alone = Compute()
    assert (alone.processes, alone.main) == (1, True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"pip install 'audiolm-streamer\[train\]'"):
        Compute()


def test_one_process_is_the_whole():
    alone = Compute()
    batch = torch.arange(6.0).view(3, 2)
    assert torch.equal(alone.share(batch), batch)
    assert torch.equal(alone.gather(batch), batch)
    assert alone.sum_over_processes(batch).sum() == 15
    assert alone.mean(batch, batch > 2) == 4
    assert alone.share_of(torch.tensor(6.0), 0) > 0
    assert alone.averages({"x": 2.0}) == {"x": 2.0}


@pytest.mark.parametrize(("asked", "text"), [(("tpu", "no"), "cpu or cuda"), (("cpu", "fp8"), "no or bf16")])
def test_what_is_not_there_is_refused(asked, text):
    with pytest.raises(InputError, match=text):
        Compute(*asked)
    if not device.torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA device"):
            Compute("cuda")


def test_the_precision_of_matrix_products_is_given_back():
    before = torch.get_float32_matmul_precision()
    with Compute("cpu", "bf16").matmuls():
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before
