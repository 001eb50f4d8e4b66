"""Random numbers that depend on (seed, stage, step, sample id) and on nothing else.

A run draws the same numbers for a sample whichever process it lands on and however often the run was killed and
resumed, without any generator state in the checkpoint. Each draw is one counter block of the Philox generator.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


def _mix(*numbers: int) -> int:
    """One 64-bit number from several (splitmix64's finaliser, chained)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state


class SampleRandom:
    """Draws for a batch of samples; row ``b`` of every draw depends on ``sample_ids[b]``, not on its neighbours.

    Successive calls give independent numbers. ``purpose`` separates users (augmentation, pretext, gate), so that
    one of them drawing more or less never changes the others.
    """

    def __init__(self, sample_ids: Sequence[int], *, seed: int, stage: int, step: int, purpose: str) -> None:
        self.sample_ids = list(sample_ids)
        self._key = np.array([_mix(seed, zlib.crc32(purpose.encode())), _mix(stage, step)], dtype=np.uint64)
        self._draws = 0

    def _draw(self, one: Callable[[np.random.Generator], np.ndarray]) -> Tensor:
        self._draws += 1
        rows = []
        for sample in self.sample_ids:
            counter = np.array([0, self._draws, sample, 0], dtype=np.uint64)
            rows.append(one(np.random.Generator(np.random.Philox(key=self._key, counter=counter))))
        return torch.from_numpy(np.stack(rows))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1). Shape: ``(B, *shape)``, float32."""
        return self._draw(lambda generator: generator.random(shape, dtype=np.float32))

    def normal(self, *shape: int) -> Tensor:
        """Standard normal. Shape: ``(B, *shape)``, float32."""
        return self._draw(lambda generator: generator.standard_normal(shape, dtype=np.float32))

    def permutation(self, length: int) -> Tensor:
        """A permutation of ``range(length)`` per sample. Shape: ``(B, length)``, int64."""
        return self._draw(lambda generator: generator.permutation(length))


class Progress(NamedTuple):
    """Where a run stands: ``step`` counts from 0 within ``stage`` and ends at ``steps``."""

    seed: int
    stage: int
    step: int
    steps: int

    @property
    def fraction(self) -> float:
        """Share of the stage that is done, in [0, 1)."""
        return self.step / self.steps

    def random(self, purpose: str, sample_ids: Sequence[int]) -> SampleRandom:
        """The random numbers of this step for these samples."""
        return SampleRandom(sample_ids, seed=self.seed, stage=self.stage, step=self.step, purpose=purpose)

    def torch_seed(self, rank: int) -> int:
        """Seed of torch's own generator (dropout) for this step and process."""
        return _mix(self.seed, self.stage, self.step, rank) >> 1


def shuffled(length: int, *, seed: int, epoch: int, purpose: str) -> np.ndarray:
    """The order in which a data set of ``length`` samples is visited in this epoch. Shape: ``(length,)``."""
    key = np.array([_mix(seed, zlib.crc32(purpose.encode())), _mix(epoch)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(length)
