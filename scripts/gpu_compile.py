"""Compiles the Triton kernels for a Hopper GPU that is not here: registers, spills and shared memory of each.

Needs Triton (`pip install triton` into a virtual environment beside torch for the CPU), no GPU. What spills, or asks
for more than 227 KiB of shared memory, is worth a look before a lease is spent on it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from audiolm.compute.kernels import depth, noise, ring

HOPPER = GPUTarget("cuda", 90, 32)
TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
HALF = "*bf16"
FRAMES = {"coarse": (192, 3, 4), "fine": (128, 2, 8), "the paper's fine": (512, 8, 8)}  # width, heads, levels


def compile_kernel(
    name: str, kernel: object, types: dict[str, str], numbers: dict[str, object], warps: int = 4
) -> None:
    """Compile one and print a line."""
    names = kernel.arg_names
    signature = {each: types.get(each, "constexpr") for each in names}
    constants = {(names.index(each),): value for each, value in numbers.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    made = triton.compile(source, target=HOPPER, options={"num_warps": warps})
    print(f"{name}: {made.metadata.shared / 1024:.0f} KiB shared, {usage(made.asm['cubin'])}")


def usage(binary: bytes) -> str:
    """Registers and spills, where Triton brought the tool that tells."""
    if not TOOL.is_file():
        return f"{len(binary)} bytes"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        said = subprocess.run([TOOL, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = dict(part.split(":", 1) for part in said.split() if ":" in part)
    return f"{found['REG']} registers, {found['STACK']} bytes spilled"


def main() -> None:
    """All kernels at the sizes that are measured."""
    words = dict.fromkeys(("seeds", "positions", "keys", "counters", "draw"), "*i64")
    numbers = {"DRAWS": 5, "BLOCKS": 7, "BLOCK": noise.BLOCK}
    compile_kernel("noise", noise.philox_kernel, {**words, "out": "*fp32", "count": "i32"}, numbers)
    for dtype in (HALF, "*fp32"):
        types = {**dict.fromkeys(("qkv", "keys", "values", "bias"), dtype), "active": "*i8"}
        types |= dict.fromkeys(("index", "rows"), "*i64") | dict.fromkeys(("cos", "sin", "out"), "*fp32")
        sizes = {"HEADS": 4, "WIDTH": 64, "PAIRS": 16, "ENTRIES": 754, "BLOCK": ring.BLOCK}
        compile_kernel(f"attention, {dtype[1:]}", ring.ring_kernel, types, sizes)
    types = dict.fromkeys(("base", "caches", "qkv", "out", "up", "down", "heads", "tables"), HALF)
    types |= dict.fromkeys(("u", "divisor", "logits", "norms", "place"), "*fp32")
    types |= {"forced": "*i64", "tokens": "*i64", "is_forced": "*i8", "greedy": "*i8", "slots": "i32"}
    for name, (width, heads, levels) in FRAMES.items():
        sizes = {"LAYERS": 2, "LEVELS": levels, "HEADS": heads, "W": width, "WP": triton.next_power_of_2(width)}
        sizes |= {"WIDTH": width // heads, "CARD": 1024, "CP": 1024, "LP": triton.next_power_of_2(levels)}
        sizes |= {"SLOTS": depth.SLOTS, "CHUNK": depth.CHUNK, "EXACT": "ieee"}
        compile_kernel(f"frame, {name}", depth.emit_kernel, types, sizes, depth.WARPS)


if __name__ == "__main__":
    main()
