"""An anchor task that every image has: edges worked out from the image itself.

The same recipe for a simulated and for a real image, and no label goes into it. Canny's detector (1986) in its usual
form: smoothing by a Gaussian, gradient, thinning across the edge, and hysteresis between two thresholds. Thresholds are
relative to the image's own gradients, so that exposure and contrast do not decide how many edges there are. Written on
SciPy since scikit-image is not a runtime dependency.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, label, map_coordinates

SIGMA = 1.2
HIGH, LOW = 0.92, 0.80
"""Shares of pixels whose gradient lies below the upper and the lower threshold."""
FAINTEST = 1.5
"""Gradients (grey levels per pixel) below this are never an edge: an even surface has none."""

RECIPE: dict[str, float] = {"version": 1, "sigma": SIGMA, "high": HIGH, "low": LOW, "faintest": FAINTEST}
"""What edges depend on besides the image, for a reader's fingerprint."""


def image_edges(image: np.ndarray) -> np.ndarray:
    """Return the edges of an image, (H, W) uint8, 0 or 1.

    Args:
        image: (H, W, 3) uint8.
    """
    grey = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    smooth = gaussian_filter(grey, SIGMA, mode="nearest")
    dy, dx = np.gradient(smooth)
    strength = np.hypot(dx, dy)
    rows, columns = np.mgrid[: grey.shape[0], : grey.shape[1]].astype(np.float64)
    across_y, across_x = (d / np.maximum(strength, 1e-9) for d in (dy, dx))
    ahead, behind = (
        map_coordinates(strength, [rows + s * across_y, columns + s * across_x], order=1, mode="nearest")
        for s in (1, -1)
    )
    # The peak takes an exact tie on one side only, so a symmetric edge stays one pixel wide.
    peak = (strength >= ahead) & (strength > behind)
    high = max(float(np.quantile(strength, HIGH)), FAINTEST)
    low = max(float(np.quantile(strength, LOW)), 0.5 * FAINTEST)
    pieces, _ = label(peak & (strength > low), structure=np.ones((3, 3)))
    kept = np.unique(pieces[peak & (strength > high)])
    edges: np.ndarray = np.isin(pieces, kept[kept > 0]).astype(np.uint8)
    return edges
