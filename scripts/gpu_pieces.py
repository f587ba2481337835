"""Folders as pieces that fit through the `device` tool, and the weights of a run back.

::

    python3 scripts/gpu_pieces.py keep CARRIED KEPT    # there: what a call carried is kept for the next calls
    python scripts/gpu_pieces.py back FILES OUT        # here: the weights and logs that a run sent back
    python scripts/gpu_pieces.py widen FILE OUT        # here: a weights file of a bundle, as runs read and write them
"""

import re
import shutil
import sys
import tarfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # audiolm, where it is not installed

CARRIED_MIB = 45  # of the 64 that travel, so that there is room for the checkout
BACK_MIB, BACK_FILES = 15, 4  # of 16 MiB and 64 in all
PIECE = re.compile(r"(?P<name>[a-z-]+)\.(?P<number>\d+)of(?P<count>\d+)")


def pack(folder: Path, pieces: Path, name: str, mib: int = CARRIED_MIB, preset: int = 4) -> list[Path]:
    """Write ``folder`` as ``pieces/NAME.1ofN`` and so on; pieces of that name that were there are removed."""
    pieces.mkdir(parents=True, exist_ok=True)
    for old in pieces.glob(f"{name}.*of*"):
        old.unlink()
    whole = pieces / f"{name}.tar.xz"
    with tarfile.open(whole, "w:xz", preset=preset) as tar:
        tar.add(folder, ".")
    size, step = whole.stat().st_size, mib << 20
    count, made = max(1, -(-size // step)), []
    with whole.open("rb") as source:
        for number in range(1, count + 1):
            made.append(pieces / f"{name}.{number}of{count}")
            made[-1].write_bytes(source.read(step))
    whole.unlink()
    return made


def keep(carried: Path, kept: Path) -> None:
    """Copy the pieces that this call brought to where the next calls find them."""
    kept.mkdir(parents=True, exist_ok=True)
    for piece in sorted(carried.glob("*of*")) if carried.is_dir() else []:
        if match := PIECE.fullmatch(piece.name):
            for stale in set(kept.glob(f"{match['name']}.*")) - set(kept.glob(f"*of{match['count']}")):
                stale.unlink()  # of an earlier staging
            shutil.copyfile(piece, kept / piece.name)
    print("kept here:", ", ".join(sorted(path.name for path in kept.iterdir())) or "nothing")


def join(pieces: Path, name: str, folder: Path) -> Path:
    """Unpack the pieces of ``name`` into ``folder``, once."""
    found = {int(m["number"]): m for m in map(PIECE.fullmatch, _names(pieces)) if m and m["name"] == name}
    count = max((int(match["count"]) for match in found.values()), default=0)
    missing = [f"{name}.{number}of{count}" for number in range(1, count + 1) if number not in found]
    if not found or missing:
        raise SystemExit(
            f"{', '.join(missing) or f'all of {name}'} is not here: the machine was given back between two calls, "
            "or a call was left out; begin again with the first one"
        )
    parts = [pieces / found[number].string for number in sorted(found)]
    mark = folder / ".pieces"
    stamp = " ".join(f"{part.stat().st_size}" for part in parts)
    if mark.is_file() and mark.read_text() == stamp:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    whole = folder / "whole.tar.xz"
    with whole.open("wb") as out:
        for part in parts:
            out.write(part.read_bytes())
    with tarfile.open(whole, "r:xz") as tar:
        tar.extractall(folder, filter="data")
    whole.unlink()
    mark.write_text(stamp)
    return folder


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def squeeze(source: Path, target: Path, dtype: str = "fp16") -> None:
    """Weights of a run, smaller: fp16, or int8 where a bundle would store int8."""
    from safetensors.torch import load_file, save_file

    from audiolm.bundle import pack_weights

    save_file(pack_weights(load_file(source), dtype), target)


def widen(source: Path, target: Path) -> Path:
    """The inverse, float32, as runs read and write them; a file of a bundle will do too."""
    from safetensors.torch import load_file, save_file

    from audiolm.bundle import unpack_weights

    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(unpack_weights(load_file(source)), target)
    return target


def send(run: Path, out: Path, name: str) -> None:
    """Put weights and logs of the folder ``run`` into ``out`` as pieces that come back."""
    for dtype in ("fp16", "int8"):
        box = run / "back"
        shutil.rmtree(box, ignore_errors=True)
        box.mkdir()
        for path in run.glob("*.jsonl"):
            shutil.copyfile(path, box / path.name)
        for path in run.glob("*.safetensors"):
            if not path.name.endswith(".state.safetensors"):
                squeeze(path, box / path.name, dtype)
        size = sum(path.stat().st_size for path in box.iterdir())
        if size < BACK_FILES * BACK_MIB << 20:
            break
        print(f"{size >> 20} MiB of {dtype} weights are too much for one reply")
    made = pack(box, out, name, BACK_MIB, preset=0)
    print("sent back:", ", ".join(f"{path.name} ({path.stat().st_size >> 10} KiB)" for path in made))


def back(files: Path, out: Path) -> None:
    """Unpack what :func:`send` sent; weights become float32 again."""
    names = {match["name"] for match in map(PIECE.fullmatch, _names(files)) if match}
    if not names:
        raise SystemExit(f"{files} holds no pieces; give the folder that the run's answer calls files_at")
    for name in sorted(names):
        box = join(files, name, out / f".{name}")
        for path in sorted(box.iterdir()):
            if path.suffix == ".safetensors":
                print(widen(path, out / path.name))
            elif path.suffix == ".jsonl":
                print(shutil.copyfile(path, out / path.name))
        shutil.rmtree(box)


def main() -> None:
    """Read the command line."""
    what, *given = sys.argv[1:] or ["help"]
    jobs = {"keep": keep, "back": back, "widen": widen}
    if what not in jobs or len(given) != 2:
        raise SystemExit(__doc__)
    jobs[what](Path(given[0]), Path(given[1]))


if __name__ == "__main__":
    main()
