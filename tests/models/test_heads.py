import copy

import pytest
import torch
from torch import nn

from isthmus.models.heads import ClassificationHead, PointReconstructionHead
from isthmus.models.layers import PointFeatures


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_classifier_is_two_hidden_layers_with_norm_activation_and_dropout():
    head = ClassificationHead(20, 4, width=0.0625, dropout=0.5, slope=0.2).double()
    written_out = nn.Sequential(
        head.layer1.linear, head.layer1.norm, nn.LeakyReLU(0.2), head.layer2.linear, head.layer2.norm,
        nn.LeakyReLU(0.2), head.logits,
    )  # fmt: skip
    pooled = torch.randn(6, 20, dtype=torch.float64)
    head.eval()
    torch.testing.assert_close(head(pooled), written_out(pooled))
    assert [layer.linear.out_features for layer in (head.layer1, head.layer2)] == [32, 16]


def test_dropout_acts_only_in_training():
    head, pooled = ClassificationHead(20, 4, width=0.1, slope=0.0), torch.randn(6, 20)
    assert not torch.equal(head(pooled), head(pooled))
    head.eval()
    assert torch.equal(head(pooled), head(pooled))


@pytest.mark.parametrize("training", [True, False])
def test_reconstruction_equals_the_form_that_repeats_the_cloud_at_every_point(training):
    head = PointReconstructionHead(12, 10, width=0.0625).double().train(training)
    repeated = copy.deepcopy(head)
    local, pooled = torch.randn(3, 9, 12, dtype=torch.float64), torch.randn(3, 10, dtype=torch.float64)
    everything = torch.cat([local, pooled[:, None].expand(-1, 9, -1)], dim=-1)
    expected = repeated.coordinates(repeated.layer3(repeated.layer2(repeated.layer1(everything))))
    torch.testing.assert_close(head(PointFeatures(local, pooled)), expected)
    for ours, theirs in zip(head.buffers(), repeated.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_no_class_is_refused():
    with pytest.raises(ValueError, match="classes must be at least 1, found 0"):
        ClassificationHead(8, 0, slope=0.0)
