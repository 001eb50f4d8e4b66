import numpy as np
import pytest

from isthmus.data.clouds import POINTDA_CLASSES
from isthmus.data.simulators.shapes import build_shape
from isthmus.geometry.meshes import join


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", POINTDA_CLASSES)
def test_every_variant_is_a_sound_mesh_of_furniture_size_on_the_floor(name: str, wide: bool) -> None:
    for seed in range(40):
        mesh = join(build_shape(name, np.random.default_rng(seed), wide))
        assert np.isfinite(mesh.vertices).all()
        assert mesh.faces.min() >= 0
        assert mesh.faces.max() < len(mesh.vertices)
        assert mesh.vertices[:, 2].min() == pytest.approx(0, abs=1e-9)
        assert 0.2 < np.ptp(mesh.vertices, axis=0).max() < 4.5


def test_a_class_has_variants_of_different_structure() -> None:
    for name in POINTDA_CLASSES:
        counts = {len(join(build_shape(name, np.random.default_rng(seed), True)).faces) for seed in range(40)}
        assert len(counts) >= 4, f"{name} has only {len(counts)} different meshes among 40"


def test_wide_draws_spread_further_than_narrow_ones() -> None:
    def spread(wide: bool) -> float:
        sizes = [
            np.log(np.ptp(join(build_shape("cabinet", np.random.default_rng(seed), wide)).vertices, axis=0))
            for seed in range(200)
        ]
        return float(np.std(sizes, axis=0).mean())

    assert spread(True) > spread(False)
