import pytest
import torch
from torch import nn

from isthmus.data.randomness import Progress
from isthmus.models.heads import PointReconstructionHead
from isthmus.models.pointnet import PointNet
from isthmus.pretexts.defrec import DefRec


def pretext(**options: object) -> tuple[PointNet, DefRec]:
    torch.manual_seed(0)
    encoder = PointNet(width=0.125)
    head = PointReconstructionHead(encoder.local_channels, encoder.pooled_channels, width=0.125)
    return encoder, DefRec(head, **options)  # type: ignore[arg-type]


def clouds(size: int = 128) -> torch.Tensor:
    points = torch.randn(3, size, 3, generator=torch.Generator().manual_seed(1)) * 0.3
    return points.clamp(-1, 1)


def random(ids: tuple[int, ...] = (0, 1, 2)):
    return Progress(0, 0, 0, 10).random("defrec/source", list(ids))


@pytest.mark.parametrize("region", ["voxel", "ball", "feature", "split", "gradient", "lambertian"])
def test_only_the_region_is_deformed_and_every_kind_trains(region: str) -> None:
    encoder, task = pretext(region=region)
    points = clouds()
    deformed, mask = task.deform(points, random(), encoder)
    assert mask.any(1).all() and not mask.all(1).any()
    assert torch.equal(deformed[~mask], points[~mask])
    task.loss(encoder, points, random()).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_the_loss_is_twenty_times_the_chamfer_distance_of_the_region() -> None:
    encoder, task = pretext()
    points = clouds()
    encoder.eval(), task.eval()
    loss = task.loss(encoder, points, random())
    deformed, mask = task.deform(points, random(), encoder)
    predicted = task.head(encoder(deformed))
    for b in range(3):  # the definition, point by point
        a, c = predicted[b][mask[b]], points[b][mask[b]]
        squared = (a[:, None] - c[None]).square().sum(-1)
        expected = 20 * (squared.min(1).values.mean() + squared.min(0).values.mean())
        torch.testing.assert_close(loss[b], expected, rtol=1e-4, atol=1e-5)


def test_a_sample_does_not_depend_on_the_others_in_eval_mode() -> None:
    encoder, task = pretext()
    encoder.eval(), task.eval()
    points = clouds()
    together, alone = task.loss(encoder, points, random()), task.loss(encoder, points[1:2], random((1,)))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_a_cloud_without_a_region_counts_nothing_instead_of_nan() -> None:
    encoder, task = pretext(min_points=10_000)
    loss = task.loss(encoder, clouds(), random())
    assert loss.tolist() == [0.0, 0.0, 0.0]
    loss.sum().backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in encoder.parameters())


def test_the_least_number_of_points_scales_with_the_cloud() -> None:
    encoder, task = pretext()
    sparse = torch.zeros(1, 64, 3)  # 64 points in one voxel: 40 of 1,024 are 2.5 of 64
    assert task.deform(sparse, random((0,)), encoder)[1].all()


def test_finding_a_feature_region_moves_no_batch_statistics() -> None:
    encoder, task = pretext(region="feature")
    encoder.train()
    before = [b.clone() for m in encoder.modules() if isinstance(m, nn.BatchNorm1d) for b in m.buffers()]
    task.deform(clouds(), random(), encoder)
    after = [b for m in encoder.modules() if isinstance(m, nn.BatchNorm1d) for b in m.buffers()]
    assert all(torch.equal(a, b) for a, b in zip(before, after)) and encoder.training
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm1d)]
    norms[0].eval()  # a partly frozen encoder stays partly frozen
    task.deform(clouds(), random(), encoder)
    assert not norms[0].training and all(norm.training for norm in norms[1:])


def test_one_voxel_order_for_the_batch_is_an_option() -> None:
    encoder, task = pretext(voxel_order="batch", min_points=1)
    points = (torch.rand(1, 900, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1).expand(12, -1, -1)
    _, mask = task.deform(points, random(tuple(range(12))), encoder)
    assert (mask == mask[0]).all()
