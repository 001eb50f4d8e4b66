"""Inverse depth, in the unit of the data set."""

from __future__ import annotations

from isthmus.tasks.positive import PositiveMap


class InverseDepth(PositiveMap):
    """What MTAN and MTPSL call depth on Cityscapes: normalised disparity, 0 to about 0.49, not metres.

    Its scale is not documented, so there is no score that needs metres.
    """

    name = "inverse_depth"
