"""AdaptSegNet (Tsai et al., CVPR 2018) at the points: the target's predictions are to look like the source's.

A discriminator per stream sees the probabilities of points, which DsCML's authors found better for it than whole maps
(their Section 4.3).
"""

from __future__ import annotations

from torch import Tensor

from isthmus.methods.stream_adversaries import StreamAdversaries, probabilities
from isthmus.models.two_streams import StreamOutputs


class AdaptSegNet(StreamAdversaries):
    """A game on each stream's probabilities; adversaries are named by stream."""

    def shown(self, source: StreamOutputs, target: StreamOutputs) -> dict[str, tuple[Tensor, Tensor]]:
        """Probabilities ``(B, N, K)`` of both domains, by stream."""
        return {
            stream: (probabilities(source.logits[stream]), probabilities(target.logits[stream]))
            for stream in self.network.streams
        }
