"""The command `audiolm`: help, every step on tiny input, and how what is wrong ends."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch

from audiolm import cli
from audiolm.bundle import load_bundle, save_bundle, weights_of
from audiolm.codec import SoundStream
from audiolm.commands.train import shareable
from audiolm.tiny import tiny_parts
from audiolm.train.data import Corpus
from audiolm.train.loop import save_weights
from audiolm.train.prepare import prepare
from audiolm.train.presets import load


@pytest.fixture(autouse=True)
def settings_afterwards():
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def audiolm(monkeypatch, capsys):
    """`audiolm(*arguments)`: exit code, standard output and standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["audiolm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return call


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with sound, its corpus, a tiny bundle as the ears and a card."""
    root = tmp_path_factory.mktemp("cli")
    (root / "sounds").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        tone = 0.2 * np.sin(np.arange(16000 * 4) * (0.05 + 0.02 * i)) + 0.01 * rng.standard_normal(16000 * 4)
        soundfile.write(root / f"sounds/{i}.wav", tone, 16000)
    prepare(root / "sounds", root / "corpus")
    save_bundle(tiny_parts(), root / "ears", card="tiny")
    (root / "card.md").write_text("a card\n")
    return root


@pytest.mark.parametrize(
    "command",
    [[], ["train"]] + [["train", name] for name in ("all", "prepare", "codec", "semantic", "sweep", "stage", "export")],
)
def test_help_says_what_a_command_takes(audiolm, command):
    code, out, _ = audiolm(*command, "--help")
    assert code == 0
    assert "Usage:" in out
    assert len(out.splitlines()) > 5


def test_help_names_the_exit_codes_and_needs_no_torch():
    script = "import sys; from audiolm.cli import app; assert 'soundfile' not in sys.modules; app(['--help'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Exit codes" in done.stdout


def test_bundles_lists_what_ships(audiolm, monkeypatch, root):
    from audiolm import bundle

    monkeypatch.setattr(bundle, "shipped", lambda: [str(root / "ears")])
    code, out, _ = audiolm("bundles")
    assert code == 0
    assert "semantic 1x32, coarse 1x32, fine 1x32" in out


def test_prepare_says_what_it_took_and_refused(audiolm, root, tmp_path):
    code, out, _ = audiolm("train", "prepare", root / "sounds", tmp_path, "--set", "prepare.dev_share=0.3")
    assert code == 0
    assert out.startswith("taken: 3 files, 12.0 s\ntrain: 2 clips")
    assert {path.name for path in tmp_path.iterdir()} == {"train", "dev", "report.json", "report.txt"}


def test_prepare_takes_one_split_of_a_manifest(audiolm, root, tmp_path):
    manifest = root / "sounds" / "list.csv"
    manifest.write_text("file,split\n0.wav,train\n1.wav,dev\n2.wav,train\n")
    code, out, _ = audiolm("train", "prepare", manifest, tmp_path, "--split", "train")
    manifest.unlink()
    assert (code, out) == (0, f"2 clips, 0.00 h in {tmp_path}\n")
    assert Corpus.open(tmp_path).names == ["0.wav", "2.wav"]


def test_tokens_stages_and_export_make_a_bundle(audiolm, root, tmp_path):
    tokens = tmp_path / "t.safetensors"
    code, out, _ = audiolm("train", "tokenize", root / "corpus", tokens, root / "ears", "--part", "0/1")
    assert (code, out) == (0, f"0.00 h of tokens in {tokens}\n")
    sizes = ("--steps", 1, "--batch", 1, "--crop", 1)
    for name in ("semantic", "coarse", "fine"):
        command = ("train", "stage", name, tmp_path, root / "ears", tokens, tokens, "--dev-tokens", tokens, *sizes)
        assert audiolm(*command)[0] == 0
    named = ("--name", "mine", "--card", root / "card.md")
    code, out, _ = audiolm("train", "export", tmp_path, tmp_path / "bundle", root / "ears", *named)
    assert code == 0
    assert "MB in" in out
    assert load_bundle(tmp_path / "bundle").name == "mine"


def test_the_encoder_and_the_ears_at_their_real_sizes(audiolm, root, tmp_path):
    corpus = f"{root / 'corpus'}=2"
    assert audiolm("train", "semantic", corpus, tmp_path, "--steps", 1, "--batch", 1)[0] == 0
    save_weights(tmp_path / "codec.safetensors", weights_of(SoundStream(load("default").codec.model)))
    code, out, _ = audiolm("train", "ears", corpus, tmp_path, "--clusters", 16, "--ticks", 1)
    assert code == 0
    assert '"clusters": 16' in out
    assert load_bundle(tmp_path / "ears").tokenizer.config.clusters == 16


WRONG = {
    "no corpus": (["codec", "nowhere", "OUT"], "nowhere is not a corpus"),
    "share": (["codec", "CORPUS=many", "OUT"], "the share of CORPUS is 'many'; expected a number"),
    "negative share": (["codec", "CORPUS=-1", "OUT"], "expected a positive number"),
    "minutes": (["codec", "CORPUS", "OUT", "--minutes", "0"], "minutes must be a positive number, got 0.0"),
    "device": (["semantic", "CORPUS", "OUT", "--device", "tpu"], "device is 'tpu'; expected cpu or cuda"),
    "weights": (["semantic", "CORPUS", "OUT", "--from", "no.safetensors"], "no.safetensors is not there"),
    "stage": (["stage", "middle", "OUT", "EARS", "t", "--dev-tokens", "t"], "unknown stage 'middle'"),
    "tokens": (["stage", "fine", "OUT", "EARS", "t", "--dev-tokens", "t"], "t is not there"),
    "ears": (["ears", "CORPUS", "OUT"], "encoder.safetensors is not there"),
    "part": (["tokenize", "CORPUS", "OUT", "EARS", "--part", "2/2"], "part is '2/2'; expected i/n"),
    "bundle": (["tokenize", "CORPUS", "OUT", "nowhere"], "nowhere"),
    "card": (["export", "OUT", "B", "EARS", "--name", "x", "--card", "no.md"], "the card no.md cannot be read"),
    "sounds": (["prepare", "nowhere", "OUT"], "nowhere is not a folder"),
}


@pytest.mark.parametrize("which", WRONG)
def test_wrong_input_ends_with_2_and_one_line(audiolm, root, tmp_path, monkeypatch, which):
    monkeypatch.chdir(tmp_path)
    arguments, message = WRONG[which]
    places = {"CORPUS": str(root / "corpus"), "EARS": str(root / "ears"), "OUT": str(tmp_path / "out")}

    def placed(text):
        for name, place in places.items():
            text = text.replace(name, place)
        return text

    code, out, err = audiolm("train", *map(placed, arguments))
    assert code == 2
    assert out == ""
    assert err.startswith("audiolm: error: ")
    assert err.count("\n") == 1
    assert placed(message) in err


WRONG_ALL = {
    "no data": (["--data", "nowhere"], "nowhere"),
    "no sound": (["--data", "."], "no sound files"),
    "unknown key": (["--set", "codec.recipe.bach=1"], "unknown key codec.recipe.bach; known: "),
    "preset": (["--preset", "huge"], "there is no preset 'huge'; shipped ones: default, music, paper, tiny"),
    "out": (["--out", "thesis"], "thesis is there and is no bundle; give another --out"),
    "step": (["--until", "lunch"], "unknown step 'lunch'; expected one of prepare, codec"),
    "minutes": (["--minutes", "0"], "minutes must be a positive number, got 0.0"),
    "licences": (["--licences", "no.txt"], "the licence no.txt cannot be read"),
    "device": (["--device", "tpu"], "device is 'tpu'; expected cpu or cuda"),
}


@pytest.mark.parametrize("which", WRONG_ALL)
def test_the_whole_recipe_refuses_what_is_wrong_before_it_makes_anything(audiolm, root, tmp_path, monkeypatch, which):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/one.txt").touch()
    options, message = WRONG_ALL[which]
    code, out, err = audiolm("train", "all", "--data", root / "sounds", "--out", "made", "--preset", "tiny", *options)
    assert (code, out) == (2, "")
    assert err.startswith("audiolm: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_a_command_for_the_card_names_no_place_of_this_machine():
    given = ["train", "all", "--data", "/home/me/my sounds", "--out", "../piano", "--set", "codec.recipe.batch=4"]
    assert shareable(given) == "audiolm train all --data 'my sounds' --out ../piano --set codec.recipe.batch=4"


def test_a_wrong_option_is_usage(audiolm):
    code, _, err = audiolm("train", "codec", "--colour", "red")
    assert code == 2
    assert "No such option" in err


def test_a_run_that_fails_ends_with_1(audiolm, root, tmp_path):
    code, _, err = audiolm("train", "codec", root / "corpus", tmp_path, "--steps", 1, "--batch", 1)
    assert code == 1
    assert "1024 codes cannot start from 32 latents" in err


def test_sigterm_ends_a_run_with_its_weights_saved(root, tmp_path):
    tokens = tmp_path / "t.safetensors"
    command = [sys.executable, "-m", "audiolm.cli", "train"]
    subprocess.run([*command, "tokenize", root / "corpus", tokens, root / "ears"], check=True, capture_output=True)
    options = ["--dev-tokens", tokens, "--crop", "1", "--batch", "1", "--minutes", "5"]
    run = subprocess.Popen(
        [*command, "stage", "semantic", tmp_path, root / "ears", tokens, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):  # the first checkpoint would be after minutes: only the signal can make it
        if run.poll() is not None or started(run.pid):
            break
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 143, err
    assert "stopped by SIGTERM at step" in err
    assert (tmp_path / "semantic.safetensors").is_file()


def started(pid):
    """Whether the process catches SIGTERM by now."""
    with open(f"/proc/{pid}/status") as file:  # noqa: PTH123 - read while it changes
        caught = next(line for line in file if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1))
