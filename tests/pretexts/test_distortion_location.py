import math

import pytest
import torch
from pretext_tester import PretextTester, classifier, draws, small_encoder, some_clouds

from isthmus.models.pointnet import PointNet
from isthmus.pretexts.distortion_location import LOCATIONS, DistortionLocation, distort, location


class TestDistortionLocation(PretextTester):
    def build(self, encoder: PointNet, **options: object) -> DistortionLocation:
        return DistortionLocation(classifier(encoder, LOCATIONS), **options)  # type: ignore[arg-type]

    def test_the_loss_is_the_cross_entropy_of_the_voxel_whose_points_are_gone(self):
        encoder, task = self.pair(min_points=100)
        points = some_clouds()
        loss = task.loss(encoder, points, draws())
        distorted, region = distort(points, draws(), min_points=100, variance=0.001)
        log_p = task.head(encoder(distorted).pooled).log_softmax(-1)
        for b in range(3):
            gone = (distorted[b] != points[b]).any(-1)
            cells = {tuple(min(2, math.floor((v + 1) * 1.5)) for v in point) for point in points[b][gone].tolist()}
            (x, y, z), *others = cells
            assert not others and torch.equal(gone, region.mask[b])
            torch.testing.assert_close(loss[b], -log_p[b, 9 * x + 3 * y + z])

    def test_a_cloud_without_such_a_voxel_counts_nothing_and_moves_nothing(self):
        encoder, task = self.pair(min_points=10_000)
        loss = task.loss(encoder, some_clouds(), draws())
        loss.sum().backward()
        assert loss.tolist() == [0.0] * 3
        assert all(p.grad is None or (p.grad == 0).all() for p in encoder.parameters())

    def test_one_cloud_without_a_voxel_does_not_silence_the_others(self):
        encoder, task = self.pair(min_points=700)  # 44 of 64 points
        points = some_clouds()
        points[1] *= 0.2  # all within the middle voxel
        assert [value > 0 for value in task.loss(encoder, points, draws()).tolist()] == [False, True, False]


def test_every_location_has_a_class_of_its_own() -> None:
    steps = torch.tensor([-2 / 3, 0.0, 2 / 3])
    assert location(torch.cartesian_prod(steps, steps, steps)).tolist() == list(range(LOCATIONS))


@pytest.mark.parametrize("variance", [0.001, 0.01])
def test_points_are_replaced_around_the_centre_with_the_variance_asked_for(variance: float) -> None:
    points = torch.zeros(4, 4000, 3) + 0.6
    distorted, region = distort(points, draws((0, 1, 2, 3)), min_points=20, variance=variance)
    assert region.mask.all() and torch.allclose(region.centre, torch.tensor(2 / 3))
    torch.testing.assert_close(distorted.mean(dim=(0, 1)), torch.full((3,), 2 / 3), rtol=0, atol=0.005)
    torch.testing.assert_close(distorted.var(dim=(0, 1)), torch.full((3,), variance), rtol=0.05, atol=0)


def test_the_least_number_of_points_scales_with_the_cloud() -> None:
    points = torch.stack([torch.linspace(-0.99, 0.99, 96)] * 3, dim=-1)[None]  # 32 points in each of three voxels
    for minimum, found in ((32 * 1024 // 96, True), (33 * 1024 // 96 + 1, False)):
        _, region = distort(points, draws((0,)), min_points=minimum, variance=0.001)
        assert bool(region.mask.any()) is found


def test_one_voxel_order_for_the_batch_is_an_option() -> None:
    points = some_clouds(1, 400).expand(12, -1, -1)
    ids = tuple(range(12))
    orders = {"sample": 1, "batch": 1}
    for order in ("sample", "batch"):
        _, region = distort(points, draws(ids), min_points=1, variance=0.001, voxel_order=order)
        orders[order] = len(set(location(region.centre).tolist()))
    assert orders["sample"] > 3 and orders["batch"] == 1


def test_the_voxel_can_be_told_once_learnt() -> None:
    """Labels and distortions belong together: a few steps on one batch bring the loss far below chance."""
    encoder = small_encoder()
    head = classifier(encoder, LOCATIONS)
    head.dropout.p = 0.0
    task = DistortionLocation(head)
    points = some_clouds(8, 128)
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=0.01)
    for _ in range(40):
        loss = task.loss(encoder, points, draws(tuple(range(8)))).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5 < math.log(LOCATIONS)
