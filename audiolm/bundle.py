"""Bundles: a model as a folder of safetensors files and one ``config.json``.

::

    NAME/config.json                    sizes, clock, sampling defaults, checksums
    NAME/codec.safetensors              encoder.net.*, decoder.net.*, rvq.codebooks
    NAME/tokenizer.safetensors          encoder.*, mean, whitening, centroids
    NAME/{semantic,coarse,fine}.safetensors
    NAME/detector.safetensors           not of the model and may be missing, see audiolm.detector
    NAME/CARD.md                        data, licences, metrics, limits

Weights are stored as fp16, or as int8 with a float scale per output channel (``NAME.scale`` beside ``NAME``); loading
gives float32, and the reference engine runs just those numbers. A bundle is checked before it is used: every file's
SHA-256, every name and shape.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from audiolm.codec import CodecConfig, SoundStream
from audiolm.errors import AudioLMError, BundleError, ConfigError
from audiolm.parts import STAGES, Parts
from audiolm.sampler import Sampling
from audiolm.stage import Stage, StageSpec
from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig

FORMAT = 1
DTYPES = ("fp16", "int8")
HALF_MAX = 65504.0
LONGEST_CONFIG = 1 << 20
FILES = ("codec", "tokenizer", *STAGES)
SHIPPED = Path(__file__).parent / "bundles"
T = TypeVar("T")


def shipped() -> list[str]:
    """Names of the bundles inside the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def find(name_or_path: str | Path) -> Path:
    """The folder of a bundle given by name or path.

    Raises:
        BundleError: there is none.
    """
    named = SHIPPED / str(name_or_path)
    if str(name_or_path) in shipped():
        return named
    path = Path(name_or_path)
    try:
        if (path / "config.json").is_file():
            return path
        what = "has no config.json" if path.is_dir() else "is neither a bundle's name nor a folder"
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
    near = get_close_matches(str(name_or_path), shipped(), 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise BundleError(
        f"bundle {str(name_or_path)!r} {what}; shipped bundles: {', '.join(shipped()) or 'none'}; or give a path{hint}",
        bundle=str(name_or_path),
    )


# -- writing --


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that a part needs at inference, each once."""
    state = module.state_dict()
    if isinstance(module, SoundStream):
        keep = ("rvq.codebooks", "encoder.net.", "decoder.net.")
        return {name: value for name, value in state.items() if name.startswith(keep)}
    if isinstance(module, SemanticTokenizer):
        unused = tuple(f"encoder.blocks.{i}." for i in range(module.config.layer, module.config.layers))
        return {name: value for name, value in state.items() if not (unused and name.startswith(unused))}
    return dict(state)


def pack_weights(tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Weights as they are stored: fp16, or int8 per output channel for matrices of at least 64 columns.

    What is small stays fp16, where an error would cost most.

    Raises:
        BundleError: an unknown dtype, or weights that are not finite or beyond fp16.
    """
    if dtype not in DTYPES:
        raise BundleError(f"weights cannot be stored as {dtype!r}; expected one of {', '.join(DTYPES)}", dtype=dtype)
    packed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if not value.is_floating_point():
            packed[name] = value
            continue
        if not bool((value.abs() <= HALF_MAX).all()):
            raise BundleError(
                f"{name} holds NaN, infinity or more than {HALF_MAX}: the training went wrong", tensor=name
            )
        if dtype == "int8" and name.endswith("weight") and value.dim() == 2 and value.shape[1] >= 64:
            scale = (value.abs().amax(1) / 127).clamp_min(1e-12)
            packed[name] = (value / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
            packed[name + ".scale"] = scale.float()
        else:
            packed[name] = value.half()
    return {name: value.contiguous() for name, value in packed.items()}


def unpack_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`pack_weights`, as float32."""
    out = {}
    for name in _names(tensors):
        value = tensors[name]
        number = value.dtype == torch.int8 or value.is_floating_point()
        like = torch.empty_like(value, dtype=torch.float32 if number else value.dtype, device="meta")
        out[name] = _unpacked(tensors, name, like)
    return out


def _names(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """The weights that a file holds: the scales of int8 are part of theirs."""
    return (name for name in tensors if not (name.endswith(".scale") and name[:-6] in tensors))


def _unpacked(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """One weight, brought to the dtype and the layout of ``like`` in one go, so that nothing is held twice."""
    value = tensors[name]
    made = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype).copy_(value)
    return made.mul_(tensors[name + ".scale"][:, None]) if value.dtype == torch.int8 else made


def save_bundle(parts: Parts, folder: str | Path, *, card: str, dtypes: Mapping[str, str] | None = None) -> Path:
    """Write ``parts`` as a bundle.

    Args:
        parts: the model; its name is the bundle's.
        folder: made if need be; files in it are replaced.
        card: the text of CARD.md.
        dtypes: ``fp16`` or ``int8`` by part; fp16 where not named.

    Raises:
        BundleError: an unknown part or dtype, or weights that cannot be stored.
    """
    unknown = sorted(set(dtypes or {}) - set(FILES))
    if unknown:
        raise BundleError(f"dtypes names the unknown part {unknown[0]!r}; parts: {', '.join(FILES)}")
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    checksums = {}
    for name in FILES:
        path = root / f"{name}.safetensors"
        save_file(pack_weights(weights_of(_part(parts, name)), (dtypes or {}).get(name, "fp16")), path)
        checksums[path.name] = _sha256(path)
    config = {
        "format": FORMAT,
        "name": parts.name,
        "codec": dataclasses.asdict(parts.codec.config),
        "tokenizer": dataclasses.asdict(parts.tokenizer.config),
        "stages": {name: dataclasses.asdict(stage.spec) for name, stage in parts.stages.items()},
        "sampling": {name: dataclasses.asdict(sampling) for name, sampling in parts.sampling.items()},
        "checksums": checksums,
    }
    (root / "CARD.md").write_text(card, encoding="utf8")
    (root / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf8")
    return root


# -- reading --


def read_config(name_or_path: str | Path) -> dict[str, Any]:
    """The checked ``config.json`` of a bundle, as plain data; needs no weights."""
    path = find(name_or_path) / "config.json"
    try:
        if path.stat().st_size > LONGEST_CONFIG:
            raise BundleError(f"{path} is longer than {LONGEST_CONFIG} bytes; it is no bundle's config")
        config = json.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON ({error}); the bundle is damaged, fetch it again") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        got = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise BundleError(
            f"{path} has format {got!r}, this version reads {FORMAT}; make the bundle again or update audiolm"
        )
    missing = [key for key in ("name", "codec", "tokenizer", "stages", "sampling", "checksums") if key not in config]
    if missing:
        raise BundleError(f"{path} lacks {', '.join(missing)}; the bundle is damaged, fetch it again")
    if not isinstance(config["checksums"], dict):
        raise BundleError(f"{path}: checksums must be an object; the bundle is damaged, fetch it again")
    with _blaming(path):
        _sizes(config)
    return config


def codec_config(config: Mapping[str, Any]) -> CodecConfig:
    """The codec's sizes in a config that :func:`read_config` gave."""
    return _sizes(config)[0]


def load_bundle(name_or_path: str | Path) -> Parts:
    """Read a bundle by name or path.

    Raises:
        BundleError: it is missing, truncated, tampered with, of another version, or its parts do not fit.
    """
    root, config = find(name_or_path), read_config(name_or_path)
    with _blaming(root / "config.json"), _Unmade():
        parts = _build(config)
    for name in FILES:
        _load_part(root / f"{name}.safetensors", config["checksums"], _part(parts, name))
    parts.fingerprint = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    return parts


class _Unmade(TorchFunctionMode):
    """Modules made inside have weights of shape and layout only: no memory, no noise drawn. What is computed is real.

    Random first weights that the stored ones replace took half the time of loading, and as much memory again. Small
    ones that are reckoned with are zeros: the device "meta" imports sympy and more, for a second, to multiply.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        named = kwargs or {}
        if func is torch.empty:
            return func(*args, **{**named, "device": "meta"})
        if func is torch.randn:
            return torch.zeros(*args, **named)
        if getattr(func, "__module__", None) == nn.init.__name__:
            return named["tensor"] if "tensor" in named else args[0]
        return func(*args, **named)


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """What goes wrong inside is the fault of this file."""
    try:
        yield
    except (AudioLMError, TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise BundleError(f"{path}: {what}; the bundle is damaged or of another version") from error


def _sizes(config: Mapping[str, Any]) -> tuple[CodecConfig, TokenizerConfig, dict[str, StageSpec], dict[str, Sampling]]:
    """The description of each part, checked; no part is made."""
    stages = {name: _dataclass(StageSpec, config["stages"][name], f"stages.{name}") for name in STAGES}
    sampling = {name: _dataclass(Sampling, config["sampling"][name], f"sampling.{name}") for name in STAGES}
    codec = _dataclass(CodecConfig, config["codec"], "codec")
    return codec, _dataclass(TokenizerConfig, config["tokenizer"], "tokenizer"), stages, sampling


def _build(config: Mapping[str, Any]) -> Parts:
    codec, tokenizer, specs, sampling = _sizes(config)
    stages = {name: Stage(spec) for name, spec in specs.items()}
    return Parts(SoundStream(codec), SemanticTokenizer(tokenizer), stages, sampling, str(config["name"]))


def _dataclass(kind: type[T], values: Any, where: str) -> T:
    """Fill a flat dataclass from JSON strictly: unknown and missing keys are errors, lists become tuples."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be an object, got {type(values).__name__}")
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    odd = sorted(set(values) ^ known)
    if odd:
        raise ConfigError(f"{where} has the wrong keys, around {', '.join(odd)}; expected {', '.join(sorted(known))}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _part(parts: Parts, name: str) -> nn.Module:
    return {"codec": parts.codec, "tokenizer": parts.tokenizer, **parts.stages}[name]


def _load_part(path: Path, checksums: Mapping[str, Any], module: nn.Module) -> None:
    """Give an unmade module its weights, each in the layout that the module describes."""
    stored = _read_tensors(path, checksums)
    wanted = weights_of(module)
    odd = sorted(set(_names(stored)) ^ set(wanted))
    if odd:
        raise BundleError(f"{path} does not hold what config.json describes, around {', '.join(odd[:3])}")
    made: dict[str, Tensor] = {}
    for name, value in wanted.items():
        given, described = tuple(stored[name].shape), tuple(value.shape)
        if given != described:
            raise BundleError(f"{path}: {name} is {given}, config.json describes {described}")
        try:
            made[name] = _unpacked(stored, name, value)
        except KeyError as error:
            raise BundleError(f"{path} is not a safetensors file of this format ({error} is missing)") from error
        if not _is_finite(made[name]):
            raise BundleError(f"{path}: {name} holds NaN or infinity; the bundle is of no use, fetch or train it again")
    _fill(module, made)


def _fill(module: nn.Module, made: Mapping[str, Tensor]) -> None:
    """Put weights in their places; what the file has no need of, such as the layers behind the one read, is zero."""
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if name not in made and not value.is_meta:
            continue
        given = made[name] if name in made else torch.zeros(value.shape, dtype=value.dtype)
        owner, _, leaf = name.rpartition(".")
        weight = nn.Parameter(given, value.requires_grad) if isinstance(value, nn.Parameter) else given
        setattr(module.get_submodule(owner), leaf, weight)


def _is_finite(value: Tensor) -> bool:
    """Whether every number is; their sum tells in a third of the time, unless it runs over."""
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


def _read_tensors(path: Path, checksums: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file as they are stored, read once so that what was checked is what is used."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing; the bundle is incomplete, fetch it again") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if hashlib.sha256(content).hexdigest() != checksums.get(path.name):
        raise BundleError(
            f"{path} does not match its checksum in config.json: truncated or altered; fetch the bundle again"
        )
    try:
        return load(content)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise BundleError(f"{path} is not a safetensors file of this format ({error})") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
