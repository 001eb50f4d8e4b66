import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.models.point_discriminator import ChunkDiscriminator, PointDiscriminator, point_rows

KINDS = [ChunkDiscriminator, PointDiscriminator]


def points(batch: int = 3, count: int = 20, channels: int = 5) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(batch, count, channels).softmax(dim=2), torch.rand(batch, count) < 0.7


def chunks_by_hand(net: ChunkDiscriminator, values: Tensor, present: Tensor) -> Tensor:
    """Layer by layer, sample by sample, with PyTorch's own adaptive pooling; in eval mode."""
    found = torch.zeros(len(values), net.chunks)
    for b in range(len(values)):
        rows = values[b][present[b]]
        if not len(rows):
            continue
        rows = F.linear(rows, net.point.weight, net.point.bias)
        rows = rows if net.point_norm is None else net.point_norm(rows)
        rows = F.adaptive_avg_pool1d(F.relu(rows).T[None], net.chunks)[0].T
        for layer, norm in zip(net.layers, ["128", "256", "256", "256", "512"]):
            rows = F.linear(rows, layer.weight, layer.bias)
            rows = F.relu(rows if net.norms is None else net.norms[norm](rows))
        found[b] = net.logit(rows)[:, 0]
    return found


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("count", [1, 5, 8, 20])
def test_chunks_are_those_of_adaptive_pooling_over_present_points(batch_norm, count):
    values, present = points(4, count)
    present[0], present[1] = True, False
    net = ChunkDiscriminator(5, batch_norm=batch_norm)
    net(values, present | True)
    logits, kept = net.eval()(values, present)
    torch.testing.assert_close(logits, chunks_by_hand(net, values, present))
    assert torch.equal(kept, present.any(dim=1)[:, None].expand(-1, 8)) and not logits[1].any()


def test_layers_of_the_released_discriminator():
    net = ChunkDiscriminator(5)
    layers = [(each.in_features, each.out_features) for each in net.modules() if isinstance(each, nn.Linear)]
    assert layers == [(5, 64), (64, 128), (128, 256), (256, 256), (256, 256), (256, 512), (512, 1)]
    norms = [each.num_features for each in net.modules() if isinstance(each, nn.BatchNorm1d)]
    assert norms == [64, 128, 256, 512], "the three layers of 256 share one"
    seen: list[int] = []
    net.norms["256"].register_forward_hook(lambda *_: seen.append(1))
    net(*points())
    assert len(seen) == 3


def test_a_point_has_its_logit_by_hand():
    values, present = points()
    net = PointDiscriminator(5, hidden=(6, 7))
    found = net(values, present)
    rows = values
    for layer in net.layers:
        rows = F.leaky_relu(layer(rows), 0.2)
    expected = net.logit(rows)[..., 0] * present
    torch.testing.assert_close(found.logits, expected)
    assert found.present is present


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_absent_points_are_not_read_and_move_nothing(kind, batch_norm):
    values, present = points()
    torch.manual_seed(1)
    net = kind(5, batch_norm=batch_norm)
    states, found = [], []
    for filler in (0.0, torch.nan):
        own = kind(5, batch_norm=batch_norm)
        own.load_state_dict(net.state_dict())
        filled = torch.where(present[..., None], values, filler).requires_grad_()
        said = own(filled, present)
        said.logits.square().sum().backward()
        assert not filled.grad[~present].any() and filled.grad[present].any()
        states.append(own.state_dict())
        found.append(said.logits)
    assert torch.equal(*found)
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch", "count"), [(1, 1), (1, 3), (2, 0), (5, 17)])
def test_any_batch_and_number_of_points_trains(kind, batch, count):
    values, _ = points(batch, count)
    net = kind(5, batch_norm=True)
    for present in (torch.ones(batch, count, dtype=torch.bool), torch.zeros(batch, count, dtype=torch.bool)):
        net.zero_grad()
        logits, kept = net(values, present)
        assert logits.shape == kept.shape == (batch, 8 if kind is ChunkDiscriminator else count)
        assert logits.isfinite().all() and not logits[~kept].any()
        logits.sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_touch_each_other_in_eval_mode(kind):
    values, present = points()
    net = kind(5, batch_norm=True)
    net(values, present)
    net.eval()
    torch.testing.assert_close(net(values[1:2], present[1:2]).logits, net(values, present).logits[1:2])


def test_chunks_do_not_depend_on_where_absent_points_lie():
    values, present = points(1)
    net = ChunkDiscriminator(5, chunks=3).eval()
    packed = values[present][None]
    alone = net(packed, torch.ones(packed.shape[:2], dtype=torch.bool))
    torch.testing.assert_close(net(values, present).logits, alone.logits)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_to_the_scores(kind):
    values, present = points(2, 6)
    net = kind(5, batch_norm=False).double()
    assert torch.autograd.gradcheck(lambda v: net(v, present).logits, values.double().requires_grad_())


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_autocast_trains(kind):
    values, present = points()
    net = kind(5, batch_norm=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(values, present).logits
    logits.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_scores_of_a_branch_become_rows():
    maps = torch.randn(2, 5, 1, 7)
    assert torch.equal(point_rows(maps)[1, 3], maps[1, :, 0, 3])


def test_bad_numbers_and_shapes_are_named():
    with pytest.raises(ValueError, match="chunks must be at least 1, found 0"):
        ChunkDiscriminator(5, chunks=0)
    with pytest.raises(ValueError, match=r"hidden must be channels of at least 1, found \(4, 0\)"):
        PointDiscriminator(5, hidden=(4, 0))
    values, present = points()
    for net in (ChunkDiscriminator(5), PointDiscriminator(5)):
        with pytest.raises(ValueError, match=r"must be \(B, N, C\) and \(B, N\), found \(3, 20, 5\), \(3, 19\)"):
            net(values, present[:, 1:])
