"""What a gate remembers of each sample: a moving average of its scores by sample id.

Beyond the paper. A score taken once is noisy (the keep-sets of two dropout draws overlap little more than by chance);
an average over visits steadies the ranking, and lets a gate be asked every k steps only. Whether it helps is a matter
of measurement, not of this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from isthmus.gates.base import gathered


class SkewnessMemory(nn.Module):
    """A moving average of the scores of every sample of every domain, kept with the weights.

    The first score of a sample is taken as it is, later ones enter with ``1 - momentum``; 0 remembers the last. With
    several processes each update gathers what all of them saw, so all remember the same.

    Args:
        samples: how many samples each domain has; ids are ``0 ... n - 1``. Loading saved weights takes their sizes.
        momentum: in [0, 1).
    """

    def __init__(self, samples: Mapping[str, int], *, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"skewness memory: expected a momentum in [0, 1), found {momentum}")
        self.momentum = momentum
        self.domains = tuple(samples)
        for domain, count in samples.items():
            self.register_buffer(f"scores_{domain}", torch.full((count,), torch.nan))

    @torch.no_grad()
    def update(self, domain: str, sample_id: Tensor, scores: Tensor) -> None:
        """Take in scores of some samples; those that are not finite change nothing.

        Every process has to call it. A sample that is seen twice in a batch enters once, with the mean of both.
        Shape: ``(B,)`` int64, ``(B,)``.
        """
        sample_id, scores = _of_all_processes(sample_id), _of_all_processes(scores.float())
        finite = scores.isfinite()
        ids, position = sample_id[finite].unique(return_inverse=True)
        count = position.bincount(minlength=len(ids))
        seen = scores.new_zeros(len(ids)).index_add_(0, position, scores[finite]) / count
        memory: Tensor = getattr(self, f"scores_{domain}")
        before = memory[ids]
        memory[ids] = torch.where(before.isfinite(), self.momentum * before + (1 - self.momentum) * seen, seen)

    def recall(self, domain: str, sample_id: Tensor) -> Tensor:
        """What is remembered of these samples, NaN for those without a score yet. Shape: ``(B,)`` to ``(B,)``."""
        memory: Tensor = getattr(self, f"scores_{domain}")
        return memory[sample_id]

    def forget(self, domain: str) -> None:
        """Nothing is remembered of a domain any more, as when its pseudo-labels are made anew."""
        getattr(self, f"scores_{domain}").fill_(torch.nan)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """A method that was built without its data (to predict) takes the sizes of what it loads."""
        for domain in self.domains:
            own, saved = getattr(self, f"scores_{domain}"), state_dict.get(f"{prefix}scores_{domain}")
            if saved is not None and saved.shape != own.shape:
                setattr(self, f"scores_{domain}", own.new_full(saved.shape, torch.nan))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _of_all_processes(values: Tensor) -> Tensor:
    """The values of all processes, in the order of their ranks."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return gathered(values)[0]
    return values
