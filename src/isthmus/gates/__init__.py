"""Rules that decide which samples take part in a self-supervised loss."""

from isthmus.gates.base import Evidence, Gate
from isthmus.gates.cosine import CosineGate
from isthmus.gates.random import RandomGate
from isthmus.gates.saliency import saliency, skewness
from isthmus.gates.scaled import ScaledWeight
from isthmus.gates.skewness import SkewnessGate

__all__ = [
    "CosineGate",
    "Evidence",
    "Gate",
    "RandomGate",
    "ScaledWeight",
    "SkewnessGate",
    "saliency",
    "skewness",
]
