import pytest
import torch
from torch import Tensor, nn

from isthmus.gates.input_gradient import coupled, separate
from isthmus.models.classifier import PointClassifier
from isthmus.models.heads import ClassificationHead
from isthmus.models.pointnet import PointNet


def network(dropout: float = 0.0) -> PointClassifier:
    torch.manual_seed(0)
    encoder = PointNet(width=0.125)
    return PointClassifier(
        encoder, ClassificationHead(encoder.pooled_channels, 4, width=0.125, dropout=dropout, slope=0.0)
    )


def losses(model: nn.Module, points: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(points), torch.arange(len(points)) % 4, reduction="none")


def test_carried_parameter_gradients_equal_an_ordinary_backward_to_the_last_bit() -> None:
    points = torch.randn(6, 20, 3)
    plain = network()
    leaf = points.clone().requires_grad_()
    (0.25 * losses(plain, leaf).sum()).backward()
    carrying = network()
    other = points.clone().requires_grad_()
    total, gradient = coupled(losses(carrying, other).sum(), other, carrying.parameters())
    (0.25 * total).backward()
    assert torch.equal(total.detach(), losses(network(), points).sum().detach())
    for (name, expected), (_, found) in zip(plain.named_parameters(), carrying.named_parameters()):
        assert torch.equal(expected.grad, found.grad), name
    torch.testing.assert_close(0.25 * gradient, leaf.grad)


def test_frozen_and_unused_parameters_get_no_gradient() -> None:
    model = network()
    model.head.requires_grad_(False)
    unused = nn.Parameter(torch.ones(2))
    leaf = torch.randn(4, 16, 3).requires_grad_()
    total, _ = coupled(losses(model, leaf).sum(), leaf, [*model.parameters(), unused])
    total.backward()
    assert unused.grad is None
    assert all(p.grad is None for p in model.head.parameters())
    assert all(p.grad is not None for p in model.encoder.parameters())


def test_a_loss_without_points_is_refused() -> None:
    parameter = nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match="does not depend on the points"):
        coupled(parameter.sum(), torch.zeros(1, 4, 3, requires_grad=True), [parameter])


def test_separate_gradient_is_per_sample_and_leaves_the_network_as_it_was() -> None:
    model = network(dropout=0.5).train()
    model.head.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    points = torch.randn(5, 24, 3)
    together = separate(model, points, lambda leaf: losses(model, leaf).sum())
    alone = [
        separate(
            model, points[i : i + 1], lambda leaf, i=i: nn.functional.cross_entropy(model(leaf), torch.tensor([i % 4]))
        )
        for i in range(5)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-6)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_batch_norm_in_training_mode_couples_samples() -> None:
    """The documented price of the nearly free gradient: another cloud in the batch changes this cloud's gradient."""
    points = torch.randn(4, 24, 3)
    changed = points.clone()
    changed[3] += 1.0

    def first(clouds: Tensor, training: bool) -> Tensor:
        model = network().train(training)
        leaf = clouds.clone().requires_grad_()
        return coupled(losses(model, leaf).sum(), leaf, model.parameters())[1][0]

    assert not torch.allclose(first(points, True), first(changed, True))
    torch.testing.assert_close(first(points, False), first(changed, False))
