"""What a training step is given: inputs by modality, labels by task, and which samples carry which label."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass
class Batch:
    """Samples of one domain.

    ``inputs`` maps a modality to a tensor of B rows (``points``: ``(B, N, 3)``, ``image``: ``(B, 3, H, W)`` in [0, 1],
    float32). ``labels`` maps a task to its labels and ``present`` the same task to a boolean per sample: a sample
    without a label has ``False`` there and an arbitrary row in ``labels``. "Missing" is never encoded as an ignore
    value. ``valid`` says, for tasks whose labels have elements (pixels), which elements of a label that is present
    count; a task that is not in it has no such mask. ``sample_id`` is ``(B,)`` int64, stable over epochs and runs of
    the same data.
    """

    domain: str
    inputs: dict[str, Tensor]
    labels: dict[str, Tensor]
    present: dict[str, Tensor]
    sample_id: Tensor
    valid: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = len(self.sample_id)
        for kind in ("inputs", "labels", "present", "valid"):
            for name, tensor in getattr(self, kind).items():
                if len(tensor) != size:
                    raise ValueError(f"batch {kind}[{name!r}]: expected {size} rows, found {len(tensor)}")
        if self.labels.keys() != self.present.keys():
            raise ValueError(f"batch: labels are {sorted(self.labels)} but presence is {sorted(self.present)}")
        if not self.valid.keys() <= self.labels.keys():
            raise ValueError(f"batch: labels are {sorted(self.labels)} but valid elements are {sorted(self.valid)}")
        for kind in ("present", "valid"):
            for name, mask in getattr(self, kind).items():
                if mask.dtype != torch.bool:
                    raise ValueError(f"batch {kind}[{name!r}]: expected bool, found {mask.dtype}")

    def __len__(self) -> int:
        return len(self.sample_id)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(
            self,
            inputs={name: tensor.to(device) for name, tensor in self.inputs.items()},
            labels={name: tensor.to(device) for name, tensor in self.labels.items()},
            present={name: tensor.to(device) for name, tensor in self.present.items()},
            sample_id=self.sample_id.to(device),
            valid={name: tensor.to(device) for name, tensor in self.valid.items()},
        )

    def labelled(self, task: str) -> Tensor:
        """Which samples carry a label of ``task``; all false for a task the batch does not know. Shape: ``(B,)``."""
        if task in self.present:
            return self.present[task]
        return torch.zeros(len(self), dtype=torch.bool, device=self.sample_id.device)
