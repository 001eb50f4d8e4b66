"""Isthmus carries 3D-vision models across domains when labels are missing.

The names below are imported on first use, so that ``import isthmus`` and ``isthmus --help`` do not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isthmus.gates import RandomGate, SkewnessGate

__version__ = "0.1.0"
__all__ = ["RandomGate", "SkewnessGate", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("RandomGate", "SkewnessGate"):
        return getattr(import_module("isthmus.gates"), name)
    raise AttributeError(f"module 'isthmus' has no attribute {name!r}")
