"""Bundles: there and back, and a clear word about every way to be bad."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sounds import digest, sound

from audiolm import AudioLM, bundle
from audiolm.bundle import (
    _sha256,
    find,
    load_bundle,
    pack_weights,
    read_config,
    save_bundle,
    shipped,
    unpack_weights,
    weights_of,
)
from audiolm.errors import BundleError
from audiolm.sampler import Sampling
from audiolm.tiny import tiny_parts
from audiolm.train.quantizer import TrainableRVQ

INT8 = dict.fromkeys(("codec", "tokenizer", "semantic", "coarse", "fine"), "int8")


def all_weights(parts):
    modules = {"codec": parts.codec, "tokenizer": parts.tokenizer, **parts.stages}
    return {f"{name}.{key}": value for name, module in modules.items() for key, value in weights_of(module).items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return save_bundle(tiny_parts(), tmp_path_factory.mktemp("bundle") / "tiny", card="# A test\n")


@pytest.fixture
def folder(made, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(made, tmp_path / "tiny")


def edit(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def resign(folder, name):
    """Make a changed file pass its checksum."""
    edit(folder, lambda config: config["checksums"].update({name: _sha256(folder / name)}))


@pytest.mark.parametrize("dtypes", [None, INT8, {"fine": "int8"}])
def test_a_bundle_comes_back_as_the_weights_it_stored(tmp_path, dtypes):
    parts = tiny_parts(width=64)
    loaded = load_bundle(save_bundle(parts, tmp_path / "b", card="card", dtypes=dtypes))
    before, after = all_weights(parts), all_weights(loaded)
    assert before.keys() == after.keys()
    for name, value in before.items():
        stored = unpack_weights(pack_weights({name: value}, (dtypes or {}).get(name.split(".")[0], "fp16")))[name]
        assert torch.equal(after[name], stored), name
        assert after[name].dtype == value.dtype
    assert loaded.codec.config == parts.codec.config
    assert loaded.tokenizer.config == parts.tokenizer.config
    assert {n: s.spec for n, s in loaded.stages.items()} == {n: s.spec for n, s in parts.stages.items()}
    assert (loaded.sampling, loaded.name) == (parts.sampling, parts.name)


def test_int8_is_int8_per_channel_and_close(tmp_path):
    parts = tiny_parts(width=64)
    root = save_bundle(parts, tmp_path / "b", card="card", dtypes=INT8)
    stored = load_file(root / "fine.safetensors")
    name = "temporal.blocks.0.up.weight"
    assert stored[name].dtype == torch.int8
    assert stored[name + ".scale"].shape == (128,)
    value = dict(parts.stages["fine"].state_dict())[name]
    error = (unpack_weights(stored)[name] - value).abs()
    assert bool((error <= value.abs().amax(1, keepdim=True) / 254 + 1e-7).all())
    assert stored["temporal.blocks.0.norm1.weight"].dtype == torch.float16


def test_a_loaded_bundle_speaks_like_itself_saved_again(made, tmp_path):
    a = AudioLM.load(made)
    b = AudioLM.load(save_bundle(a.parts, tmp_path / "again", card="card"))
    assert digest(a.continuation(sound(5), 0.2)) == digest(b.continuation(sound(5), 0.2))


def test_loading_leaves_the_callers_noise_alone(made):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_bundle(made)
    assert torch.equal(torch.rand(3), expected)


def test_nothing_stays_unmade_and_what_is_not_stored_is_zero(made):
    loaded, built = load_bundle(made), tiny_parts()
    for name, module in {"codec": loaded.codec, "tokenizer": loaded.tokenizer, **loaded.stages}.items():
        like = built.stages[name] if name in built.stages else getattr(built, name)
        described = {**dict(like.named_parameters()), **dict(like.named_buffers())}
        held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        assert held.keys() == described.keys()
        for key, value in held.items():
            assert not value.is_meta, key
            assert not value.requires_grad, key
            assert (type(value), value.dtype, value.shape) == (type(described[key]), value.dtype, described[key].shape)
            assert value.stride() == described[key].stride() or key.startswith("encoder.blocks.1."), key
            if key.startswith("encoder.blocks.1."):  # layer 1 of 2 is read
                assert not bool(value.any()), key


def test_what_only_training_needs_is_not_stored(tmp_path):
    parts = tiny_parts()
    config = parts.codec.config
    parts.codec.rvq = TrainableRVQ(config.levels, config.cardinality, config.latent)
    root = save_bundle(parts, tmp_path / "b", card="card")
    assert "rvq.use" not in load_file(root / "codec.safetensors")
    tokenizer = load_file(root / "tokenizer.safetensors")
    assert not any(name.startswith("encoder.blocks.1.") for name in tokenizer)  # layer 1 of 2 is read


def test_the_folder_holds_what_it_should_and_no_pickle(made):
    files = ["CARD.md", "coarse", "codec", "config.json", "fine", "semantic", "tokenizer"]
    assert sorted(p.name.removesuffix(".safetensors") for p in made.iterdir()) == sorted(files)
    assert (made / "CARD.md").read_text() == "# A test\n"
    assert "pickle" not in vars(bundle)
    assert "torch.load" not in __import__("inspect").getsource(bundle)


def test_sampling_defaults_travel_with_the_bundle(tmp_path):
    parts = tiny_parts()
    parts.sampling = {name: Sampling(0.5, top_k=9, guidance=2.0) for name in parts.stages}
    loaded = load_bundle(save_bundle(parts, tmp_path / "b", card="card"))
    assert loaded.sampling == parts.sampling
    assert AudioLM(loaded).continuation(sound(3), 0.04).shape == (640,)


def test_names_and_paths(made, monkeypatch, tmp_path):
    monkeypatch.setattr(bundle, "SHIPPED", made.parent)
    assert shipped() == ["tiny"]
    assert find("tiny") == made
    assert find(made) == find(str(made)) == made
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find("tiny") == made  # a folder in the way does not hide a shipped name
    with pytest.raises(BundleError, match=r"shipped bundles: tiny.*did you mean 'tiny'"):
        find("tinny")
    with pytest.raises(BundleError, match=r"has no config\.json"):
        find("./tiny")


@pytest.mark.parametrize("name", ["nobody", "../tiny", "a/b", "x" * 5000, "nul\0name"])
def test_unknown_names_list_the_shipped_ones(name):
    with pytest.raises(BundleError, match="shipped bundles: "):
        find(name)


@pytest.mark.parametrize("name", ["codec", "tokenizer", "semantic", "coarse", "fine"])
def test_missing_truncated_and_altered_files(made, tmp_path, name):
    path = shutil.copytree(made, tmp_path / "b") / f"{name}.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(BundleError, match=f"{name}.safetensors does not match its checksum"):
        load_bundle(path.parent)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(BundleError, match="truncated or altered"):
        load_bundle(path.parent)
    path.unlink()
    with pytest.raises(BundleError, match="is missing"):
        load_bundle(path.parent)


def test_files_that_pass_their_checksum_but_are_no_safetensors(folder):
    for content in (b"", b"not a safetensors file", b"\xff" * 100):
        (folder / "fine.safetensors").write_bytes(content)
        resign(folder, "fine.safetensors")
        with pytest.raises(BundleError, match=r"not a safetensors file"):
            load_bundle(folder)


def rewrite(folder, change):
    path = folder / "fine.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    resign(folder, path.name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("tokens.table.weight"), "does not hold what config.json describes"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra"),
        (lambda t: t.update({"tokens.table.weight": torch.zeros(2, 2)}), r"is \(2, 2\), config.json describes"),
        (lambda t: t.update({"temporal.norm.weight": torch.full((32,), float("nan"))}), "NaN or infinity"),
        (lambda t: t.update({"tokens.table.weight": torch.zeros(136, 32, dtype=torch.int8)}), "scale"),
    ],
)
def test_tensors_that_do_not_fit(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=2), "has format 2, this version reads 1"),
        (lambda c: c.pop("format"), "has format None"),
        (lambda c: c.pop("codec"), "lacks codec"),
        (lambda c: c.update(checksums=[]), "checksums must be an object"),
        (lambda c: c["checksums"].clear(), "does not match its checksum"),
        (lambda c: c["codec"].update(chanels=3), "wrong keys, around chanels"),
        (lambda c: c["codec"].pop("levels"), "wrong keys, around levels"),
        (lambda c: c.update(codec=[1, 2]), "codec must be an object, got list"),
        (lambda c: c["stages"].pop("fine"), "fine"),
        (lambda c: c["stages"]["fine"].update(width=36), "split"),
        (lambda c: c["stages"]["fine"].update(layers=10**9), "layers is 1000000000"),
        (lambda c: c["stages"]["fine"].update(layers="one"), "'one'"),
        (lambda c: c["stages"]["fine"].update(pattern="swirl"), "swirl"),
        (lambda c: c["stages"]["fine"].update(layers=2), "does not hold what config.json describes"),
        (lambda c: c["stages"]["fine"].update(feed_forward=3), "config.json describes"),
        (lambda c: c["tokenizer"].update(clusters=25), "semantic vocabulary is 24"),
        (lambda c: c["codec"].update(levels=5), "levels"),
        (lambda c: c["codec"].update(strides=3), "damaged"),
        (lambda c: c["sampling"]["fine"].update(temperature=-1), "temperature"),
        (lambda c: c.update(stages=None), "damaged"),
    ],
)
def test_configs_that_cannot_be(folder, change, message):
    edit(folder, change)
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 200_000, b" " * (2 << 20)])
def test_configs_that_are_no_config(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"config\.json"):
        read_config(folder)


def test_a_folder_in_place_of_a_file(folder):
    (folder / "fine.safetensors").unlink()
    (folder / "fine.safetensors").mkdir()
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(folder)


def test_weights_that_cannot_be_stored_are_refused(tmp_path):
    with pytest.raises(BundleError, match="'int4'"):
        pack_weights({}, "int4")
    for bad in (float("nan"), float("inf"), 1e6):
        with pytest.raises(BundleError, match="training went wrong"):
            pack_weights({"w": torch.tensor([1.0, bad])}, "fp16")
    with pytest.raises(BundleError, match="unknown part 'fien'"):
        save_bundle(tiny_parts(), tmp_path / "b", card="", dtypes={"fien": "int8"})
    assert not (tmp_path / "b").exists()


def test_a_pickle_is_never_read(folder):
    torch.save({"a": np.zeros(3)}, folder / "fine.safetensors")
    resign(folder, "fine.safetensors")
    with pytest.raises(BundleError, match=r"not a safetensors file"):
        load_bundle(folder)
