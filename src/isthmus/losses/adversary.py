r"""An adversary: a discriminator that tells source from target at one place of a network, and the game against it.

Two games, named:

- ``reversal`` (DANN, Ganin and Lempitsky 2015): one loss, the discriminator's, whose gradient reaches the network with
  the opposite sign: the literal :math:`\min_{f,g} \max_d` of TADA's Eq. 7 with L_adv = - the discriminator's loss.
- ``non-saturating`` (AdaptSegNet, Tsai et al. 2018; ADVENT, Vu et al. 2019): the network is asked to have target maps
  called "source" by a discriminator that is held fixed; the discriminator learns on detached maps of both domains.
  Both happen in the same step, each with its own loss, instead of alternating steps.

The discriminator's logits mean "source"; its loss is the mean of the cross-entropies on the two domains (each halved,
as AdaptSegNet has it). Stabilisers of TADA's supplement A.1, all off by default: a late switch-on, noise on inputs,
activations and labels, regions outside of the object masked to zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.func import functional_call

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress, SampleRandom
from isthmus.losses.reversal import dann_ramp, reverse_gradient
from isthmus.losses.weighted import Loss
from isthmus.models.modes import running_statistics_kept
from isthmus.models.patch_discriminator import Noise, PatchDiscriminator

Game = Literal["reversal", "non-saturating"]

MEMORY = 0.98
"""How much of the running accuracy of a discriminator a step keeps."""


class Adversary(nn.Module):
    """A discriminator at the tap ``name``, and its losses.

    Args:
        name: of the tap; the losses are ``discriminator/<name>`` and ``adversary/<name>``.
        discriminator: gives logits of "source" per patch.
        game: see the module.
        weight: of the network's side of the game.
        start: share of a stage after which the game begins; nothing is lost or learnt before.
        ramp: let the network's side grow from 0 as DANN does.
        input_noise: standard deviation of the noise on the maps.
        label_noise: probability with which an image's domain is given to the discriminator wrongly.

    Attributes:
        accuracy: a running mean of how many patches the discriminator tells right, over all processes; NaN before the
            game has begun. TADA takes "very frequently lower than 55 %" as the sign that adaptation works, which needs
            no label.
    """

    accuracy: Tensor

    def __init__(
        self,
        name: str,
        discriminator: PatchDiscriminator,
        *,
        game: Game,
        weight: float,
        start: float = 0.0,
        ramp: bool = False,
        input_noise: float = 0.0,
        label_noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.name = name
        self.discriminator = discriminator
        self.game = game
        self.weight = weight
        self.start = start
        self.ramp = ramp
        self.input_noise = input_noise
        self.label_noise = label_noise
        self.register_buffer("accuracy", torch.tensor(float("nan")))

    def forward(
        self, source: Tensor, target: Tensor, progress: Progress, ids: tuple[Sequence[int], Sequence[int]]
    ) -> dict[str, Loss]:
        """The losses of maps ``(B_s, C, H, W)`` and ``(B_t, C, H', W')`` of images with these sample ids."""
        device = source.device
        if progress.fraction < self.start:
            self.accuracy.fill_(torch.nan)  # an earlier stage's says nothing about this one
            losses = {f"discriminator/{self.name}": Loss.absent(device)}
            return losses if self.game == "reversal" else {**losses, f"adversary/{self.name}": Loss.absent(device)}
        done = (progress.fraction - self.start) / (1 - self.start)
        strength = self.weight * (dann_ramp(done) if self.ramp else 1.0)
        draws = [
            progress.random(f"adversary/{self.name}/{domain}", sample_ids)
            for domain, sample_ids in zip(("source", "target"), ids)
        ]
        source, target = (self._noisy(values, random) for values, random in zip((source, target), draws))
        if self.game == "reversal":
            seen = [reverse_gradient(values, strength) for values in (source, target)]
        else:
            seen = [source.detach(), target.detach()]
        # One pass, so that BatchNorm sees both domains and cannot itself tell them apart.
        logits = self._logits(seen, draws)
        self._remember(logits)
        right = [torch.ones(len(source), device=device), torch.zeros(len(target), device=device)]
        if self.label_noise > 0:
            flips = [(random.uniform() < self.label_noise).to(device) for random in draws]
            right = [torch.where(flip, 1 - each, each) for flip, each in zip(flips, right)]
        # Means over each domain, halved: as a mean over all images this needs equal numbers of both.
        told = [cross_entropy(each, labels) for each, labels in zip(logits, right)]
        size = len(source) + len(target)
        scaled = torch.cat([0.5 * size / len(each) * each for each in told])
        losses = {f"discriminator/{self.name}": Loss.of(scaled, size)}
        if self.game == "non-saturating":
            fooled = self._fixed(source, target)
            called_source = cross_entropy(fooled, torch.ones(len(target), device=device))
            losses[f"adversary/{self.name}"] = Loss.of(called_source, len(target), strength)
        return losses

    def _noisy(self, values: Tensor, random: SampleRandom) -> Tensor:
        if self.input_noise <= 0:
            return values
        return values + self.input_noise * random.normal(*values.shape[1:]).to(values)

    def _logits(self, maps: list[Tensor], draws: list[SampleRandom]) -> list[Tensor]:
        """Logits by domain. Maps of one size go through together."""

        def noise(which: list[SampleRandom]) -> Noise:
            return lambda shape: torch.cat([random.normal(*shape) for random in which])

        if maps[0].shape[1:] == maps[1].shape[1:]:
            together = self.discriminator(torch.cat(maps), noise(draws))
            return list(together.split([len(each) for each in maps]))
        return [self.discriminator(each, noise([random])) for each, random in zip(maps, draws)]

    def _fixed(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits of the target by a discriminator that does not learn from them."""
        fixed = {name: tensor.detach() for name, tensor in self.discriminator.named_parameters()}
        # BatchNorm has to see the source here too: normalised on its own, the target would not look any different.
        together = self.discriminator.norms is not None and source.shape[1:] == target.shape[1:]
        values = torch.cat([source.detach(), target]) if together else target
        with running_statistics_kept(self.discriminator):
            result: Tensor = functional_call(self.discriminator, fixed, (values,))
        return result[-len(target) :]

    @torch.no_grad()
    def _remember(self, logits: list[Tensor]) -> None:
        right = torch.stack([(logits[0] > 0).float().mean(), (logits[1] <= 0).float().mean()]).mean()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(right)
            right = right / distributed.get_world_size()
        kept = torch.where(self.accuracy.isnan(), right, self.accuracy)
        self.accuracy.copy_(MEMORY * kept + (1 - MEMORY) * right)


def cross_entropy(logits: Tensor, source: Tensor) -> Tensor:
    """Per image the mean over patches. Shapes: ``(B, 1, H, W)``, ``(B,)`` (1: source) to ``(B,)``."""
    labels = source[:, None, None, None].expand_as(logits).to(logits)
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").flatten(1).mean(dim=1)


def self_information(probabilities: Tensor) -> Tensor:
    """ADVENT's weighted self-information, -p log p / log C per class. Shape: ``(B, C, H, W)``, in [0, 1)."""
    classes = probabilities.shape[1]
    if classes < 2:
        raise ValueError(f"self-information needs at least 2 classes, found {classes}")
    return -torch.xlogy(probabilities, probabilities) / torch.log(torch.tensor(float(classes)))


def region(batch: Batch, task: str, size: tuple[int, int]) -> Tensor:
    """Where the object is, by a label that the batch carries; everywhere for images without one.

    The box around labelled keypoints, what is not class 0 of a segmentation or of parts, valid pixels of other tasks.
    Shape: ``(B, 1, *size)`` float32 of 0 and 1.
    """
    label, valid, carried = batch.labels[task], batch.valid[task], batch.labelled(task)
    if task == "keypoints":
        inside = _boxes(label, valid, size)
    else:
        full = valid & (label != 0) if task in ("segmentation", "parts") else valid
        inside = F.interpolate(full[:, None].float(), size, mode="nearest")
    return torch.where(carried[:, None, None, None], inside, torch.ones_like(inside))


def _boxes(points: Tensor, valid: Tensor, size: tuple[int, int]) -> Tensor:
    rows = (torch.arange(size[0], device=points.device) + 0.5) / size[0]
    columns = (torch.arange(size[1], device=points.device) + 0.5) / size[1]
    inside = []
    for axis, places in ((1, rows), (0, columns)):
        values = points[:, :, axis]
        low = torch.where(valid, values, torch.inf).min(dim=1).values[:, None]
        high = torch.where(valid, values, -torch.inf).max(dim=1).values[:, None]
        inside.append((places >= low) & (places <= high))
    return (inside[0][:, None, :, None] & inside[1][:, None, None, :]).float()
