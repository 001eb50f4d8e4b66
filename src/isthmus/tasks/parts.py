"""Parts of the human body."""

from __future__ import annotations

from torch import Tensor

from isthmus.tasks.pixels import masked
from isthmus.tasks.segmentation import Segmentation

BACKGROUND = 0


class Parts(Segmentation):
    """A segmentation whose score leaves out images without a person.

    An image with a label that holds nothing but background (class 0) has statistics of zeros, as in the protocol of
    ASTMT and Vandenhende et al. that MTPSL follows on PASCAL. There such an image has no label at all, and readers of
    PASCAL do the same; if a reader does hand one out, it is trained on.
    """

    heading = "parts mIoU [%]"

    def __init__(self, classes: tuple[str, ...]) -> None:
        super().__init__(classes, "parts")

    def statistics(self, output: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """Confusion matrices of the images with a person, flattened. Shape: ``(B, K * K)``."""
        person = (masked(label, valid) != BACKGROUND).any(dim=-1).any(dim=-1)
        return super().statistics(output, label, valid) * person[:, None]
