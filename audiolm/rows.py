"""Rows of several sessions side by side, as the arrays that an engine steps. It knows nothing of tensors."""

from collections.abc import Mapping

import numpy as np

from audiolm.runner import Row
from audiolm.stage import StageSpec


class RowBatch:
    """The rows of several sessions as arrays ``[slots, ...]``; slots without a row hold what harms nobody.

    Attributes:
        positions: ``[slots]`` int64.
        forced, is_forced, u: ``[slots, levels]`` int64, bool and float32.
        cond: ``[slots, cond_levels]`` int64.
        levels: leading levels that some row samples. The levels behind are forced in all rows, so none emits them.
    """

    def __init__(self, spec: StageSpec, slots: int, rows: Mapping[int, Row]) -> None:
        self.positions = np.zeros(slots, np.int64)
        self.forced = np.zeros((slots, spec.levels), np.int64)
        self.is_forced = np.ones((slots, spec.levels), np.bool_)
        self.cond = np.full((slots, spec.cond_levels), spec.cond_mask, np.int64)
        self.u = np.full((slots, spec.levels), 0.5, np.float32)
        self.levels = 0
        for slot, row in rows.items():
            self.positions[slot], self.forced[slot] = row.position, row.forced
            if row.cond is not None:
                self.cond[slot] = row.cond
            if row.u is not None:  # something of it is sampled
                self.u[slot], self.is_forced[slot] = row.u, row.is_forced
                self.levels = max(self.levels, spec.levels - int(row.is_forced[::-1].argmin()))
