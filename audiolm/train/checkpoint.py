"""What a run writes: weights, and the full state that it resumes from. safetensors and JSON, never pickle.

A state file holds the tensors of all parts of a run as ``PART/NAME`` and, in its header, one JSON text of everything
else (step, seconds, settings, plain values). A file is written whole under another name and then renamed, so that
there is always a good one.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from audiolm.bundle import weights_of
from audiolm.errors import InputError
from audiolm.train.faults import TrainingError

FORMAT = 1
LENGTHS = ("minutes", "steps")  # how long a run is, which may change when it is resumed


@runtime_checkable
class Resumable(Protocol):
    """Something with a state of tensors and JSON values."""

    def save(self) -> dict[str, Any]:
        """The whole state."""

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take back what :meth:`save` gave."""


Part = nn.Module | torch.Generator | np.random.Generator | Resumable


@dataclasses.dataclass(frozen=True)
class State:
    """A state file: tensors as ``PART/NAME``, plain values by part, and facts of the run."""

    tensors: dict[str, Tensor]
    values: dict[str, dict[str, Any]]
    facts: dict[str, Any]


# -- weights --


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any] | None = None) -> None:
    """Write safetensors through a temporary name, so that an interrupted write leaves the last file intact.

    Raises:
        TrainingError: the file cannot be written (no room, no permission); the last one is intact.
    """
    target = Path(path)
    temporary = target.with_suffix(".part")
    data = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        save_file(data, temporary, {key: json.dumps(value) for key, value in (info or {}).items()})
        with temporary.open("rb+") as file:
            os.fsync(file)  # else a power failure after the renaming may leave an empty file
        temporary.replace(target)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{target} cannot be written ({error}); what was there before is intact") from error
    finally:
        temporary.unlink(missing_ok=True)


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any] | None = None) -> None:
    """Like :func:`save_tensors`, for weights: none may be NaN or infinite.

    Raises:
        TrainingError: one is, or the file cannot be written; the last one is intact.
    """
    bad = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if bad:
        raise TrainingError(f"{bad[0]} holds NaN or infinity; {path} is left as it was: go on from it at a lower rate")
    save_tensors(path, tensors, info)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: it is not there or is no such file.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} is not there; expected weights or tokens that `audiolm train` wrote", path=str(path))
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); make it again") from error


def load_weights(path: str | Path, module: nn.Module) -> None:
    """Read weights that a training wrote into ``module``.

    Raises:
        InputError: the file is not there, or its names and shapes are not those that ``module`` is stored with.
    """
    tensors = read_tensors(path)
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    wanted = {name: tuple(value.shape) for name, value in weights_of(module).items()}
    odd = sorted(name for name in given.keys() | wanted.keys() if given.get(name) != wanted.get(name))
    if odd:
        raise InputError(
            f"{path} does not fit: {odd[0]} is {given.get(odd[0], 'not there')}, expected "
            f"{wanted.get(odd[0], 'nothing of this name')}; it is of a {type(module).__name__} of other sizes"
        )
    module.load_state_dict(tensors, strict=False)


# -- states --


def _dump(part: Part) -> dict[str, Any]:
    """The state of one part."""
    if isinstance(part, nn.Module):
        return dict(part.state_dict())
    if isinstance(part, torch.Generator):
        return {"state": part.get_state()}
    if isinstance(part, np.random.Generator):
        return {"state": part.bit_generator.state}
    return part.save()


def _restore(part: Part, saved: Mapping[str, Any]) -> None:
    if isinstance(part, nn.Module):
        part.load_state_dict(dict(saved))
    elif isinstance(part, torch.Generator):
        part.set_state(saved["state"])
    elif isinstance(part, np.random.Generator):
        part.bit_generator.state = saved["state"]
    else:
        part.load(saved)


class TorchNoise:
    """The state of torch's global generators, of the CPU and of the CUDA device if there is one."""

    def save(self) -> dict[str, Any]:
        """One tensor of bytes each."""
        cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
        return {"cpu": torch.get_rng_state(), **cuda}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take them back."""
        torch.set_rng_state(saved["cpu"])
        if "cuda" in saved and torch.cuda.is_available():
            torch.cuda.set_rng_state(saved["cuda"])


def collect(parts: Mapping[str, Part], facts: Mapping[str, Any]) -> State:
    """The state of a run that consists of named parts.

    Raises:
        TrainingError: something in it is NaN or infinite.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for name, part in parts.items():
        saved = _dump(part)
        values[name] = {key: value for key, value in saved.items() if not isinstance(value, Tensor)}
        # clones: tied weights share their storage, which the format refuses
        tensors |= {
            f"{name}/{key}": value.detach().clone() for key, value in saved.items() if isinstance(value, Tensor)
        }
    bad = [name for name, value in tensors.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise TrainingError(f"{bad[0]} holds NaN or infinity; the last good state is left as it was: lower the rate")
    return State(tensors, values, dict(facts))


def write_state(path: Path, state: State) -> None:
    """Write a state file.

    Raises:
        TrainingError: it cannot be written; the last one is intact.
    """
    save_tensors(path, state.tensors, {"format": FORMAT, "facts": state.facts, "values": state.values})


def read_state(path: Path) -> State | None:
    """Read a state file; None when there is none.

    Raises:
        InputError: it is damaged, or of another version.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            header = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a readable state ({error}); give --restart to begin anew") from error
    if header.get("format") != FORMAT or not {"facts", "values"} <= set(header):
        raise InputError(f"{path} is no state of this version; give --restart to begin anew", path=str(path))
    return State(tensors, header["values"], header["facts"])


def apply_state(path: Path, state: State, parts: Mapping[str, Part]) -> None:
    """Give every part its state back.

    Raises:
        InputError: the state is of other parts or sizes.
    """
    if set(state.values) != set(parts):
        raise InputError(
            f"{path} holds {', '.join(sorted(state.values))}, this run has {', '.join(sorted(parts))}; "
            "give --restart to begin anew"
        )
    for name, part in parts.items():
        own = {key.removeprefix(f"{name}/"): t for key, t in state.tensors.items() if key.startswith(f"{name}/")}
        try:
            _restore(part, {**own, **state.values[name]})
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{path} does not fit this run's {name} ({' '.join(str(error).split())}); give --restart to begin anew"
            ) from error


# -- settings --


def settings_of(*recipes: Any) -> dict[str, Any]:
    """The fields of dataclasses as JSON values, without the length of the run: what a resumed run must share."""
    return {
        type(recipe).__name__: {k: v for k, v in dataclasses.asdict(recipe).items() if k not in LENGTHS}
        for recipe in recipes
    }


def check_settings(path: Path, state: State, settings: Mapping[str, Any]) -> None:
    """Refuse to go on from a state that was made with other settings.

    Raises:
        InputError: one differs; the text names it and what can be done.
    """
    was, now = _flat(state.facts["settings"]), _flat(settings)
    odd = [name for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)]
    if odd:
        raise InputError(
            f"{path} is of a run with other settings: {odd[0]} was {was.get(odd[0])!r} and is {now.get(odd[0])!r} now. "
            "Give the settings of that run to go on with it, --restart to begin anew, --from with its weights to start "
            "a new run from them, or another folder",
            setting=odd[0],
        )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``outer.inner`` names."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out
