"""How often a continuation falls silent: the choice of sampling defaults.

    python scripts/silent_share.py BUNDLE PROMPT [SEMANTIC COARSE FINE]

Continues PROMPT for 10 s with four seeds at these temperatures, or the bundle's own, and prints for each the share of
ticks below -50 dBFS and the median level.
"""

import sys

import numpy as np

from audiolm import AudioLM

SECONDS, SEEDS, SILENT_DB = 10.0, (1, 2, 3, 4), -50.0


def main(bundle: str, prompt: str, *temperatures: str) -> None:
    """Print a row a seed."""
    model = AudioLM.load(bundle)
    chosen = dict(zip(("semantic", "coarse", "fine"), map(float, temperatures), strict=True)) if temperatures else None
    for seed in SEEDS:
        ticks = np.stack(list(model.stream(prompt, SECONDS, seed=seed, temperature=chosen)))
        level = 20 * np.log10(np.sqrt(np.square(ticks).mean(1)) + 1e-9)
        print(f"seed {seed}: silent {np.mean(level < SILENT_DB):.2f}, median {np.median(level):.1f} dBFS")


if __name__ == "__main__":
    main(*sys.argv[1:])
