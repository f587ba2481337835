"""Other codecs to stand beside ours in ``audiolm eval reconstruction``: Opus, and EnCodec or Lyra where they are.

A :class:`Peer` takes a sound at 16 kHz and a rate, and gives back what it makes of it at 16 kHz and the bits a second
that it took. Nothing is fetched: ``encodec=FOLDER`` is a model folder for transformers, ``lyra=FOLDER`` holds the
programs of Lyra's build. Knows nothing of measures; a delay of theirs is found where sounds are compared.
"""

import math
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from audiolm.errors import InputError
from audiolm.eval.need import need
from audiolm.eval.opus import opus
from audiolm.train.data import RATE
from audiolm.train.shards import Array

OPUS_RATES = (6000, 12000, 24000)
LYRA_RATES = (3200, 6000, 9200)  # all that Lyra V2 has
PATIENCE = 120.0  # seconds that a program may take over a crop


@dataclass(frozen=True)
class Peer:
    """A codec: its name, its rates in bit/s, and ``code(sound, rate)``, float32 ``[samples]`` to sound and bit/s."""

    name: str
    rates: Sequence[int]
    code: Callable[[Array, int], tuple[Array, float]]


def opus_peer(rates: Sequence[int] = OPUS_RATES) -> Peer:
    """Opus at the nominal rates."""
    return Peer("Opus", rates, opus)


def peer(item: str) -> Peer:
    """``encodec=FOLDER`` or ``lyra=FOLDER``.

    Raises:
        InputError: neither, or what it takes is not in the folder or not installed.
    """
    kind, _, folder = item.partition("=")
    if kind not in OPENED or not folder:
        raise InputError(f"--beside {item!r}; expected encodec=FOLDER or lyra=FOLDER", item=item)
    if not Path(folder).is_dir():
        raise InputError(f"--beside {item}: there is no folder {folder}", path=folder)
    return OPENED[kind](Path(folder))


def resampled(sound: Array, from_rate: int, to_rate: int) -> Array:
    """A whole sound at another rate, delay removed."""
    from audiolm.resample import Resampler

    resampler = Resampler(from_rate, to_rate)
    pieces = [*resampler.push(np.asarray(sound, np.float32)), *resampler.finish()]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


# -- EnCodec --


def encodec(folder: Path) -> Peer:
    """EnCodec (Défossez et al. 2022, arXiv 2210.13438) as transformers loads it, such as the 24 kHz model.

    Raises:
        InputError: transformers is not installed, or the folder holds no mono EnCodec that codes a sound in one piece.
    """
    model = _encodec_model(folder)
    config = model.config
    if config.audio_channels != 1 or config.chunk_length_s is not None:
        raise InputError(
            f"the EnCodec in {folder} has {config.audio_channels} channels and chunks of {config.chunk_length_s} s; "
            "expected a mono model without chunks, as encodec_24khz"
        )

    @torch.inference_mode()
    def code(sound: Array, rate: int) -> tuple[Array, float]:
        wide = torch.from_numpy(resampled(sound, RATE, config.sampling_rate))[None, None]
        coded = model.encode(wide, bandwidth=rate / 1000)
        made = model.decode(coded.audio_codes, coded.audio_scales).audio_values[0, 0, : wide.shape[-1]]
        bits = coded.audio_codes.numel() * math.log2(config.codebook_size)
        return resampled(made.numpy(), config.sampling_rate, RATE), bits / (len(sound) / RATE)

    return Peer("EnCodec", [round(1000 * rate) for rate in config.target_bandwidths], code)


def _encodec_model(folder: Path) -> Any:
    try:
        library = import_module("transformers")
    except ImportError as error:
        raise InputError(f"EnCodec is read by transformers ({error}); pip install transformers") from error
    try:
        return library.EncodecModel.from_pretrained(str(folder), local_files_only=True).eval()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(
            f"{folder} holds no EnCodec model for transformers ({error}); expected config.json and model.safetensors",
            path=str(folder),
        ) from error


# -- Lyra --


def lyra(folder: Path) -> Peer:
    """Lyra V2 by the programs of its build, ``encoder_main`` and ``decoder_main``; ``model_coeffs`` beside them.

    Raises:
        InputError: a program is not in the folder.
    """
    programs = [folder / name for name in ("encoder_main", "decoder_main")]
    missing = [program.name for program in programs if not program.is_file()]
    if missing:
        raise InputError(f"{folder} lacks {', '.join(missing)}; give the folder of Lyra's programs", path=str(folder))
    encoder, decoder = (str(program.resolve()) for program in programs)
    places = (folder / "model_coeffs", folder / "lyra" / "model_coeffs")
    model = [f"--model_path={place.resolve()}" for place in places if place.is_dir()][:1]

    def code(sound: Array, rate: int) -> tuple[Array, float]:
        audio = need("soundfile")
        with TemporaryDirectory() as name:
            place, shared = Path(name), [f"--output_dir={name}", f"--bitrate={rate}", *model]
            audio.write(place / "sound.wav", sound, RATE, subtype="PCM_16")
            _run([encoder, f"--input_path={place / 'sound.wav'}", *shared], folder)
            coded = _made(place / "sound.lyra", encoder)
            _run([decoder, f"--encoded_path={coded}", *shared], folder)
            made, heard = audio.read(_made(place / "sound_decoded.wav", decoder), dtype="float32")
            bits = 8 * coded.stat().st_size
        return resampled(made, heard, RATE), bits / (len(sound) / RATE)

    return Peer("Lyra", LYRA_RATES, code)


def _run(call: list[str], folder: Path) -> None:
    """A program of the user's, in its own folder."""
    try:
        done = subprocess.run(call, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603 - the user named it
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{call[0]} cannot be run ({error}); give the folder of Lyra's programs") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise InputError(f"{call[0]} ended with code {done.returncode} ({said[-1] if said else 'it said nothing'})")


def _made(path: Path, program: str) -> Path:
    if not path.is_file():
        raise InputError(f"{program} made no {path.name}; is it Lyra V2's?", path=str(path))
    return path


OPENED: dict[str, Callable[[Path], Peer]] = {"encodec": encodec, "lyra": lyra}
