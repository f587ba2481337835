"""Measures on a lent GPU what it serves: `python3 scripts/gpu_bench.py $OUT`. Runs there; torch and numpy are enough.

It is `python -m benchmarks.gpu --output OUT`, from any folder. What comes back is `gpu.jsonl` and a table, `gpu.md`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu.__main__ import main

if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        sys.argv[1:2] = ["--output", sys.argv[1]]
    raise SystemExit(main())
