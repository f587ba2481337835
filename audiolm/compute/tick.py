"""A tick of every slot on a device: ears, rounds of semantic and coarse rows, fine rows and sound, passed on in place.

A **round** is one semantic row and the coarse rows that its token allows. Steady generation takes one round a tick; the
first tick after listening takes more, for what the ears had not heard yet and for what the stages had to wait for.
Tokens go from stage to stage on the device. What is to be done in which slot comes in one matrix, ``orders``; who fills
it in, and why, is for :mod:`audiolm.lockstep`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiolm.compute.graphs import Captured, Inlet, Outlet, full_state
from audiolm.compute.noise import Noise
from audiolm.compute.placed import Placed, RowInputs, narrowed
from audiolm.sampler import Sampling, SamplingTensors
from audiolm.streaming import State

# Columns of the orders, int64. ROW is the semantic row of the round; SEED holds the bits of an unsigned word.
COLUMNS = ("SLOT", "SEED", "START", "NOW", "ROW", "EARS", "LISTENS", "ON", "TAKES", "FORCED", "COARSE")
SLOT, SEED, START, NOW, ROW, EARS, LISTENS, ON, TAKES, FORCED, COARSE = range(len(COLUMNS))


class TickProgram:
    """The states of all slots, and the captured pieces of a tick.

    Args:
        placed: the model.
        slots: how many.
        burst: slots that a round beyond the first takes side by side; None: all.
        truncates: some slot may sample with top-k or top-p; costs a sort a level.
        graphs: capture.
    """

    def __init__(self, placed: Placed, slots: int, *, burst: int | None, truncates: bool, graphs: bool) -> None:
        self.placed, self.slots, self.burst = placed, slots, burst
        parts, device = placed.parts, placed.device
        self.per, self.ahead = parts.frames_per_tick, parts.stages["coarse"].spec.ahead
        self.split, self.levels = parts.codec.config.coarse_levels, parts.codec.config.levels
        self.fresh = {part: placed.init_state(part) for part in parts.names}
        self.states: dict[str, State] = {part: full_state(one, slots) for part, one in self.fresh.items()}
        self.settings = {name: self._sampling([parts.sampling[name]] * slots, truncates) for name in parts.stages}
        self.orders = Inlet((slots, len(COLUMNS)), torch.int64, device)
        self.few = Inlet((burst or slots, len(COLUMNS)), torch.int64, device, pinned=False)  # filled every round
        self.sound_in = Inlet((slots, parts.tick), torch.float32, device)
        self.tokens_in = Inlet((slots, self.per * self.levels + 1), torch.int64, device)
        self.out = Outlet((slots, parts.tick + self.per * self.levels), torch.float32, device)
        self._make_buffers(slots, device)
        self._make_noise(device)
        pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

        def captured(call: Callable[[], None]) -> Captured:
            return Captured(call, device, graph=graphs, pool=pool)

        self.hear, self.take_heard = captured(self._hear), captured(self._take_heard)
        self.catch_up = captured(self._catch_up)
        self.go_on, self.speak = captured(self._go_on), captured(self._speak_heard)

    def _make_buffers(self, slots: int, device: torch.device) -> None:
        """What one piece of a tick leaves for the next, and heard coarse tokens that wait for their rows."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros((slots, *shape), dtype=torch.int64, device=device)

        self.capacity = self.per * (self.ahead + self.placed.parts.lookahead + 1)
        self.waiting = zeros(self.capacity, self.split)
        self.token, self.codes, self.coarse = zeros(), zeros(self.per, self.levels), zeros(self.per, self.split)

    def _make_noise(self, device: torch.device) -> None:
        semantic, coarse, fine = (self.placed.stages[name].spec for name in ("semantic", "coarse", "fine"))
        first = [(semantic.index, 1), *[(coarse.index, coarse.levels)] * self.per]
        kernel = self.placed.kernels.uniforms
        self.round_noise = Noise(first, device, kernel)
        self.noise = Noise([*first, *[(fine.index, fine.levels)] * self.per], device, kernel)

    def _sampling(self, how: list[Sampling], truncates: bool) -> SamplingTensors:
        made = SamplingTensors(how, self.placed.device)
        made.any_greedy, made.any_top_k, made.any_top_p = True, truncates, truncates
        return made

    # -- pieces --

    def _hear(self) -> None:
        """The ears take a tick of sound."""
        ears = self.orders.there[:, EARS] != 0
        self.codes.copy_(self.placed.step("encoder", self.sound_in.there, self.states["encoder"], ears))
        self.token.copy_(self.placed.step("tokenizer", self.sound_in.there, self.states["tokenizer"], ears))
        self._keep()

    def _take_heard(self) -> None:
        """What other ears made of a tick comes in as tokens."""
        self.codes.copy_(self.tokens_in.there[:, 1:].view_as(self.codes))
        self.token.copy_(self.tokens_in.there[:, 0])
        self._keep()

    def _keep(self) -> None:
        """Heard coarse tokens wait for the semantic tokens that their rows read."""
        orders = self.orders.there
        listens, slots = (orders[:, LISTENS] != 0)[:, None], torch.arange(self.slots, device=orders.device)
        for i in range(self.per):
            at = (orders[:, NOW] * self.per + i) % self.capacity
            self.waiting[slots, at] = torch.where(listens, self.codes[:, i, : self.split], self.waiting[slots, at])

    def _catch_up(self) -> None:
        """A round in a few slots, or in all."""
        self._round(self.few.there, whole=self.burst is None, last=False)

    def _go_on(self) -> None:
        """A round in every slot that takes one, then fine rows and sound."""
        self._speak(self._round(self.orders.there, whole=True, last=True))

    def _speak_heard(self) -> None:
        """Fine rows and sound where no slot takes a round."""
        self._speak([self._nothing()] * (1 + 2 * self.per))

    def _nothing(self) -> Tensor:
        return torch.full((self.slots, self.levels), 0.5, device=self.placed.device)

    def _positions(self, orders: Tensor, *, last: bool) -> Tensor:
        """Positions of the noise of each row, ``[B, draws]``: counted from the stream's start."""
        row, start = orders[:, ROW], orders[:, START]
        columns = [row - start] + [(row - self.ahead - start) * self.per + i for i in range(self.per)]
        if last:
            columns += [(orders[:, NOW] - start) * self.per + i for i in range(self.per)]
        return torch.stack(columns, 1)

    def _round(self, orders: Tensor, *, whole: bool, last: bool) -> list[Tensor]:
        """One semantic row and the coarse rows behind it; the noise of the fine rows comes back, ``[B, levels]`` each.

        ``orders`` ``[B, columns]`` are of all slots (``whole``) or of a few.
        """
        noise = (self.noise if last else self.round_noise)(orders[:, SEED], self._positions(orders, last=last))
        rows = None if whole else orders[:, SLOT]
        slots = torch.arange(self.slots, device=orders.device) if rows is None else rows
        token = self._semantic(orders, rows, slots, noise[0])
        for i in range(self.per):
            frame = (orders[:, ROW] - self.ahead) * self.per + i
            row = RowInputs(
                positions=frame.clamp_min(0),
                active=orders[:, COARSE] != 0,
                forced=self.waiting[slots, frame % self.capacity],
                is_forced=self._all((frame < orders[:, NOW] * self.per) | (orders[:, LISTENS] != 0), self.split),
                u=noise[1 + i],
                cond=token,
                rows=rows,
            )
            self.coarse[slots, i] = self._row("coarse", row)
        return noise

    def _semantic(self, orders: Tensor, rows: Tensor | None, slots: Tensor, u: Tensor) -> Tensor:
        row = RowInputs(
            positions=orders[:, ROW],
            active=orders[:, TAKES] != 0,
            forced=self.token[slots][:, None],
            is_forced=(orders[:, FORCED] != 0)[:, None],
            u=u,
            rows=rows,
        )
        # A row that is not taken gives what harms nobody.
        return self._row("semantic", row).clamp_min(0)

    def _row(self, stage: str, row: RowInputs) -> Tensor:
        settings = self.settings[stage]
        return self.placed.stages[stage].step(
            row, settings if row.rows is None else narrowed(settings, row.rows), self.states[stage]
        )

    def _speak(self, noise: list[Tensor]) -> None:
        """The fine rows of this tick and its sound."""
        orders = self.orders.there
        listens, on = orders[:, LISTENS] != 0, orders[:, ON] != 0
        stack = []
        for i in range(self.per):
            coarse = torch.where(listens[:, None], self.codes[:, i, : self.split], self.coarse[:, i])
            row = RowInputs(
                positions=orders[:, NOW] * self.per + i,
                active=on,
                forced=self.codes[:, i, self.split :],
                is_forced=self._all(listens, self.levels - self.split),
                u=noise[1 + self.per + i][:, : self.levels - self.split],
                cond=coarse,
            )
            stack.append(torch.cat((coarse, self._row("fine", row)), 1))
        codes = torch.stack(stack, 1)
        sound = self.placed.step("decoder", codes, self.states["decoder"], on)
        self.out.there.copy_(torch.cat((sound, codes.flatten(1).float()), 1))

    @staticmethod
    def _all(mask: Tensor, levels: int) -> Tensor:
        return mask[:, None].expand(-1, levels)

    # -- slots --

    def reset(self, slot: int) -> None:
        """A fresh stream in ``slot``; its sampling stays."""
        for part, state in self.states.items():
            for key, value in state.items():
                value[slot].copy_(self.fresh[part][key][0])
        for buffer in (self.waiting, self.token, self.codes, self.coarse):
            buffer[slot].zero_()

    def set_sampling(self, slot: int, stage: str, how: Sampling) -> None:
        """Change how a slot samples."""
        new, held = SamplingTensors([how], self.placed.device), self.settings[stage]
        for name, value in vars(held).items():
            if isinstance(value, Tensor):
                value[slot] = getattr(new, name)[0]

    def read(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Sound ``[slots, tick]`` float32 and tokens ``[slots, frames, levels]`` int64 of the tick."""
        out = self.out.read()
        sound, codes = np.split(out, [self.placed.parts.tick], 1)
        return sound, codes.astype(np.int64).reshape(self.slots, self.per, self.levels)
