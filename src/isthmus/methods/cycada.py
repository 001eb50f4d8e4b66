"""CyCADA (Hoffman et al., ICML 2018), its feature level: the target's features are to look like the source's.

The pixel level, a cycle-consistent translation of images before training, is left out; tables name the row so.
"""

from __future__ import annotations

from torch import Tensor

from isthmus.methods.stream_adversaries import StreamAdversaries
from isthmus.models.two_streams import StreamOutputs


class CyCADA(StreamAdversaries):
    """A game on each stream's features; adversaries are named by stream."""

    def shown(self, source: StreamOutputs, target: StreamOutputs) -> dict[str, tuple[Tensor, Tensor]]:
        """Features ``(B, N, C)`` of both domains, by stream."""
        return {stream: (source.features[stream], target.features[stream]) for stream in self.network.streams}
