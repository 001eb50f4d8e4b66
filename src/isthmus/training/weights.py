"""Start an encoder from weights of the user's own, and say exactly what fitted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isthmus.errors import RecipeError
from isthmus.training.run import read_checkpoint


@dataclass(frozen=True)
class WeightsAccount:
    """Which keys of a file went into a network and which did not."""

    matched: tuple[str, ...]
    absent: tuple[str, ...]
    """Keys of the network that the file lacks."""
    unused: tuple[str, ...]
    """Keys of the file that the network lacks."""
    misshapen: tuple[str, ...]
    """Keys of both whose shapes differ, with both shapes."""

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} of {len(self.matched) + len(self.absent) + len(self.misshapen)} keys matched"]
        for title, keys in (("absent", self.absent), ("unused", self.unused), ("misshapen", self.misshapen)):
            if keys:
                lines.append(f"{title}: {', '.join(keys)}")
        return "; ".join(lines)


def load_encoder(encoder: nn.Module, path: Path) -> WeightsAccount:
    """Copy what fits from a ``.pt``/``.pth`` (tensors only) or ``.safetensors`` file into ``encoder``.

    Accepts a bare state dict, one under ``weights`` or ``state_dict``, and keys with any common prefix that ends in
    ``encoder.``. Raises RecipeError if nothing fits.
    """
    if not path.is_file():
        raise RecipeError(f"encoder_weights: expected a file, found none at {path}")
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError:
            raise RecipeError("encoder_weights: reading .safetensors needs: pip install safetensors") from None
        found: dict[str, Any] = dict(load_file(path))
    else:
        found = read_checkpoint(path)
    for wrapper in ("weights", "state_dict"):
        if isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    own = encoder.state_dict()
    inside = {key.rpartition("encoder.")[2]: value for key, value in found.items() if "encoder." in key}
    given = inside or found
    fitting, misshapen = {}, []
    for key, value in given.items():
        if key in own and isinstance(value, torch.Tensor):
            if value.shape == own[key].shape:
                fitting[key] = value
            else:
                misshapen.append(f"{key} (file {tuple(value.shape)}, network {tuple(own[key].shape)})")
    if not fitting:
        raise RecipeError(
            f"encoder_weights: {path}: no key fits; expected such as {next(iter(own))!r}, "
            f"found such as {next(iter(given), None)!r}"
        )
    encoder.load_state_dict(fitting, strict=False)
    return WeightsAccount(
        matched=tuple(fitting),
        absent=tuple(key for key in own if key not in given),
        unused=tuple(key for key in given if key not in own),
        misshapen=tuple(misshapen),
    )
