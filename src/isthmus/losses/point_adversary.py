r"""A discriminator of points that tells source from target, and the game against it.

The games of :mod:`isthmus.losses.adversary`, for values of points in place of maps; logits mean "source":

- ``literal``: :math:`\max_G \min_D -\log\rho(S) - \log(1 - \rho(T))` (CMAL's Eq. 5 to 8): one loss, whose gradient
  reaches the network with the opposite sign. It saturates.
- ``non-saturating``: the network is asked to have the target's values called "source" by a discriminator that is held
  fixed, which learns on detached values of both domains in the same step (AdaptSegNet, CMAL as released).

A discriminator with BatchNorm sees both domains in one pass, on either side of the game: normalised on its own, a
target whose values are all too great would look like any other. (CMAL as released normalises each on its own.)
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.func import functional_call

from isthmus.losses.adversary import MEMORY
from isthmus.losses.clan import domain_cross_entropy
from isthmus.losses.reversal import reverse_gradient
from isthmus.losses.weighted import Loss
from isthmus.models.modes import running_statistics_kept
from isthmus.models.point_discriminator import ChunkDiscriminator, PointDiscriminator, PointLogits

PointGame = Literal["non-saturating", "literal"]
Points = tuple[Tensor, Tensor]
"""Values ``(B, N, C)`` and which of them are points ``(B, N)``."""


class PointAdversary(nn.Module):
    """A discriminator, and its losses ``discriminator/<name>`` and, if the game has two, ``adversary/<name>``.

    Args:
        name: what the losses are called by.
        discriminator: of ``(B, N, C)`` values of points.
        game: see the module.
        weight: of the network's side of the game.
        sides: weights of the source's and the target's term in the discriminator's loss (CMAL as released: 0.1, 0.2).

    Attributes:
        accuracy: a running mean of the share of logits that the discriminator tells right, over all processes.
    """

    accuracy: Tensor

    def __init__(
        self,
        name: str,
        discriminator: ChunkDiscriminator | PointDiscriminator,
        *,
        game: PointGame,
        weight: float,
        sides: tuple[float, float] = (0.5, 0.5),
    ) -> None:
        super().__init__()
        self.name = name
        self.discriminator = discriminator
        self.game = game
        self.weight = weight
        self.sides = sides
        self.register_buffer("accuracy", torch.tensor(float("nan")))

    def forward(
        self,
        source: Points,
        target: Points,
        factor: Tensor | None = None,
    ) -> dict[str, Loss]:
        """The losses of values ``(B, N, C)``, each with the mask ``(B, N)`` of its points.

        ``factor`` ``(B_t, N_t)`` weighs the target's points on the network's side of a non-saturating game (CLAN) whose
        discriminator has a logit for each point.

        Raises:
            ValueError: a factor in a literal game, or for a discriminator of chunks.
        """
        literal = self.game == "literal"
        if factor is not None and (literal or isinstance(self.discriminator, ChunkDiscriminator)):
            found = f"a {self.game} game with {type(self.discriminator).__name__}"
            raise ValueError(f"factor: expected a non-saturating game with PointDiscriminator, found {found}")
        seen = [
            (reverse_gradient(values, self.weight) if literal else values.detach(), present)
            for values, present in (source, target)
        ]
        told = _apart(self.discriminator(*_together(*seen)), len(source[0]))
        self._remember(told)
        terms = [_loss(logits, right) for logits, right in zip(told, (True, False))]
        count = sum(term.weight for term in terms)
        # A domain counts by its weight, however many frames with points it has.
        scaled = [share * term.sum * count / term.weight.clamp(min=1) for share, term in zip(self.sides, terms)]
        losses = {f"discriminator/{self.name}": Loss(scaled[0] + scaled[1], torch.as_tensor(count))}
        if not literal:
            fooled = _loss(self._fixed((source[0].detach(), source[1]), target), True, factor)
            losses[f"adversary/{self.name}"] = fooled._replace(coefficient=self.weight)
        return losses

    def _fixed(self, source: Points, target: Points) -> PointLogits:
        """Logits of the target by a discriminator that does not learn from them."""
        fixed = {name: tensor.detach() for name, tensor in self.discriminator.named_parameters()}
        together = self.discriminator.norms is not None
        with running_statistics_kept(self.discriminator):
            seen = _together(source, target) if together else target
            result: PointLogits = functional_call(self.discriminator, fixed, seen)
        return _apart(result, len(source[0]))[1] if together else result

    @torch.no_grad()
    def _remember(self, told: list[PointLogits]) -> None:
        counts = torch.stack(
            [
                torch.stack([(((logits > 0) == is_source) & present).sum(), present.sum()]).float()
                for (logits, present), is_source in zip(told, (True, False))
            ]
        )
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(counts)
        seen = counts[:, 1] > 0
        if not seen.any():
            return
        right = (counts[seen, 0] / counts[seen, 1]).mean()
        kept = torch.where(self.accuracy.isnan(), right, self.accuracy)
        self.accuracy.copy_(MEMORY * kept + (1 - MEMORY) * right)


def _together(first: Points, second: Points) -> Points:
    """Both as one batch, the shorter one padded with absent points."""
    longest = max(present.shape[1] for _, present in (first, second))
    missing = [longest - present.shape[1] for _, present in (first, second)]
    values = [F.pad(each, (0, 0, 0, more)) for (each, _), more in zip((first, second), missing)]
    present = [F.pad(each, (0, more)) for (_, each), more in zip((first, second), missing)]
    return torch.cat(values), torch.cat(present)


def _apart(told: PointLogits, first: int) -> list[PointLogits]:
    """Logits of the first samples, and of the others."""
    return [PointLogits(told.logits[part], told.present[part]) for part in (slice(first), slice(first, None))]


def _loss(told: PointLogits, source: bool, factor: Tensor | None = None) -> Loss:
    """The mean over frames that have a point."""
    frames = told.present.any(dim=1)
    if factor is not None:
        factor = F.pad(factor, (0, told.present.shape[1] - factor.shape[1]))
    return Loss.of(domain_cross_entropy(told.logits, told.present, source, factor)[frames], frames.sum())
