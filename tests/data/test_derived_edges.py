import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.feature import canny

from isthmus.data.derived_edges import SIGMA, image_edges


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.rint(values).astype(np.uint8)[..., None], 3, axis=2)


def scene(seed: int = 0) -> np.ndarray:
    """Soft blobs, a disc and a little noise."""
    g = np.random.default_rng(seed)
    rows, columns = np.mgrid[:80, :70]
    values = 40 * gaussian_filter(g.normal(size=(80, 70)), 6) / 0.05 / 6
    values += 80 * ((rows - 40) ** 2 + (columns - 30) ** 2 < 400)
    return np.clip(90 + values + g.normal(size=(80, 70)), 0, 255)


def test_an_even_picture_has_no_edges() -> None:
    assert not image_edges(grey(np.full((20, 30), 120.0))).any()
    noise = np.random.default_rng(0).normal(size=(40, 40))
    assert image_edges(grey(120 + noise)).mean() < 0.01


def test_the_outline_of_a_disc_is_one_thin_closed_line() -> None:
    rows, columns = np.mgrid[:64, :64]
    radius = np.hypot(rows - 31.3, columns - 30.8)
    found = image_edges(grey(np.where(radius < 20, 200, 60)))
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 1}
    assert np.abs(radius[found == 1] - 20).max() < 1.5
    # As long as a circle of pixels, diagonal steps counting once: between 8 r / sqrt(2) and 8 r.
    assert 8 * 20 / np.sqrt(2) < found.sum() < 8 * 20
    angle = np.arctan2(rows - 31.3, columns - 30.8)[found == 1]
    assert np.diff(np.sort(angle)).max() < 0.15


def test_edges_are_where_scikit_image_finds_them() -> None:
    image = grey(scene())
    found = image_edges(image)
    reference = canny(
        image[..., 0].astype(float), sigma=SIGMA, low_threshold=0.80, high_threshold=0.92, use_quantiles=True
    )
    for one, other in ((found == 1, reference), (reference, found == 1)):
        assert (distance_transform_edt(~other)[one] <= 1.5).mean() > 0.9


def test_exposure_and_colour_do_not_matter() -> None:
    values = scene()
    bright, dark = image_edges(grey(values)), image_edges(grey(0.4 * values))
    assert (bright != dark).mean() < 0.02
    np.testing.assert_array_equal(image_edges(grey(values)), image_edges(grey(values).copy()))


def test_a_mirrored_picture_has_mirrored_edges() -> None:
    image = grey(scene(3))
    one, other = image_edges(image), image_edges(image[:, ::-1])[:, ::-1]
    assert (one != other).mean() < 0.005
