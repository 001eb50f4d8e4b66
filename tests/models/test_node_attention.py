import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.geometry.farthest_point import farthest_point_order
from isthmus.models.node_attention import NodeAttention, SelfAdaptiveNodes


def module(**options: object) -> SelfAdaptiveNodes:
    torch.manual_seed(0)
    found = SelfAdaptiveNodes(5, 6, **{"nodes": 4, "neighbours": 7, **options})  # type: ignore[arg-type]
    torch.nn.init.normal_(found.offset.weight)
    return found


def clouds(size: int = 40, count: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, size, 3, generator=generator) - 0.5, torch.randn(count, size, 5, generator=generator)


def ball(cloud: Tensor, centre: Tensor, radius: float, limit: int) -> list[int]:
    """Points within the radius, nearest first; the nearest in any case."""
    distances = [(float((point - centre).norm()), index) for index, point in enumerate(cloud)]
    near = sorted(distances)[:limit]
    return [index for place, (distance, index) in enumerate(near) if place == 0 or distance <= radius]


def by_hand(nodes: SelfAdaptiveNodes, points: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
    """Node by node and neighbour by neighbour, with BatchNorm in eval mode."""
    order = farthest_point_order(points, min(nodes.nodes, points.shape[1]))
    positions = torch.zeros(len(points), nodes.nodes, 3)
    features = torch.zeros(len(points), nodes.nodes, nodes.out_channels)
    for b, (cloud, seen) in enumerate(zip(points, local)):
        for m in range(nodes.nodes):
            centre = int(order[b, m % order.shape[1]])
            around = ball(cloud, cloud[centre], nodes.radius, nodes.k)
            pulls = [nodes.offset(seen[j] - seen[centre]).tanh() * (cloud[j] - cloud[centre]) for j in around]
            place = cloud[centre] + torch.stack(pulls).mean(dim=0)
            described = []
            for j in ball(cloud, place, nodes.radius, nodes.k):
                mapped = nodes.gather.linear(torch.cat([seen[j], cloud[j] - place]))
                described.append(F.leaky_relu(nodes.gather.norm(mapped[None])[0], nodes.gather.slope))
            positions[b, m], features[b, m] = place, torch.stack(described).max(dim=0).values
    return positions, features


@pytest.mark.parametrize("options", [{}, {"radius": 0.02}, {"radius": 5.0}, {"neighbours": 1}, {"slope": 0.2}])
def test_nodes_are_those_of_a_loop_over_balls(options):
    nodes, (points, local) = module(**options).eval(), clouds()
    with torch.no_grad():
        nodes.gather.norm.running_mean.normal_()
        nodes.gather.norm.weight.normal_()
        positions, features = by_hand(nodes, points, local)
        found = nodes(points, local)
    torch.testing.assert_close(found.positions, positions)
    torch.testing.assert_close(found.features, features, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 16])
def test_a_cloud_with_fewer_points_than_nodes_uses_them_in_turn(size):
    nodes, (points, local) = module(nodes=20).eval(), clouds(size)
    found = nodes(points, local)
    assert found.positions.shape == (3, 20, 3) and found.features.shape == (3, 20, 6)
    turn = torch.arange(20) % size
    torch.testing.assert_close(found.features, found.features[:, turn])


def test_repeated_points_give_finite_nodes():
    nodes, (points, local) = module(), clouds(4)
    found = nodes(points.repeat(1, 10, 1), local.repeat(1, 10, 1))
    assert found.positions.isfinite().all() and found.features.isfinite().all()
    same = nodes(torch.zeros(2, 16, 3), torch.zeros(2, 16, 5))
    assert same.features.isfinite().all() and same.positions.eq(0).all()


def test_new_nodes_start_at_farthest_points_and_never_leave_the_radius():
    points, local = clouds()
    fresh = SelfAdaptiveNodes(5, 6, nodes=4)
    start = points.gather(1, farthest_point_order(points, 4)[..., None].expand(-1, -1, 3))
    assert torch.equal(fresh(points, local).positions, start)
    torch.nn.init.normal_(fresh.offset.weight, std=100.0)
    moved = (fresh(points, local).positions - start).norm(dim=-1)
    assert moved.max() <= fresh.radius and moved.max() > 0


def test_order_of_points_and_other_clouds_do_not_matter_in_eval_mode():
    nodes, (points, local) = module().eval(), clouds()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    found = nodes(points, local)
    for other in (nodes(points[:, order], local[:, order]), nodes(points[:1], local[:1])):
        torch.testing.assert_close(other.features, found.features[: len(other.features)])


def test_a_shifted_cloud_has_shifted_nodes_and_the_same_features():
    nodes, (points, local) = module().eval(), clouds()
    found, shifted = nodes(points, local), nodes(points + 0.25, local)
    torch.testing.assert_close(shifted.positions, found.positions + 0.25)
    torch.testing.assert_close(shifted.features, found.features, atol=1e-5, rtol=1e-5)


def test_the_offsets_learn_and_so_do_features_and_the_layer():
    nodes, (points, local) = module(), clouds()
    local.requires_grad_()
    nodes(points, local).features.square().sum().backward()
    for tensor in (local, nodes.offset.weight, nodes.gather.linear.weight):
        assert tensor.grad.isfinite().all() and tensor.grad.abs().sum() > 0
    fresh = SelfAdaptiveNodes(5, 6, nodes=4)  # starting at zero must not keep them there
    fresh(points, local.detach()).features.square().sum().backward()
    assert fresh.offset.weight.grad.abs().sum() > 0


def test_autocast_changes_nothing():
    nodes, (points, local) = module().eval(), clouds()
    expected = nodes(points, local).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nodes(points, local).features, expected)


def test_attention_weighs_between_once_and_twice_and_sees_all_nodes():
    torch.manual_seed(0)
    attention = NodeAttention(4, 6, reduction=3)
    features = torch.randn(2, 4, 6, requires_grad=True)
    found = attention(features)
    flat = features.flatten(1)
    share = torch.sigmoid(attention.excite(torch.relu(attention.squeeze(flat))))
    torch.testing.assert_close(found, (flat * (1 + share)).view(2, 4, 6))
    ratio = found / features
    assert ratio.min() > 1 and ratio.max() < 2
    found[0, 0, 0].backward()
    assert features.grad[0].abs().gt(0).all() and features.grad[1].eq(0).all()


def test_the_published_size_has_an_attention_over_4096_numbers():
    nodes = SelfAdaptiveNodes(320)
    attention = NodeAttention(nodes.nodes, nodes.out_channels)
    assert (nodes.nodes, nodes.radius, nodes.k) == (64, 0.3, 64)
    assert attention.squeeze.in_features == attention.excite.out_features == 4096


@pytest.mark.parametrize("wrong", [{"nodes": 0}, {"neighbours": 0}, {"radius": 0.0}])
def test_sizes_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="must be at least 1 and radius greater than 0"):
        SelfAdaptiveNodes(5, **wrong)
    with pytest.raises(ValueError, match="reduction must be"):
        NodeAttention(4, 6, reduction=0)


def test_shapes_that_do_not_fit_are_refused():
    points, local = clouds()
    for wrong in ((points, local[..., :4]), (points[:, 1:], local), (points[..., :2], local)):
        with pytest.raises(ValueError, match="points and local must be"):
            module()(*wrong)
