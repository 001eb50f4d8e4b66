import copy

import pytest
import torch
from network_tester import EncoderTester

from isthmus.data.randomness import SampleRandom
from isthmus.geometry.knn import knn
from isthmus.models.dgcnn import edge_features
from isthmus.models.dgcnn_segmentation import (
    LinearEdgeBlock,
    NormedEdgeBlock,
    PointSegmentationHead,
    PointSegmenter,
    SegmentationDGCNN,
)
from isthmus.models.heads import PointReconstructionHead
from isthmus.models.pointnet import PointNet
from isthmus.pretexts.defrec import DefRec


class TestSegmentationDGCNN(EncoderTester):
    MINIMUM_POINTS = 6

    def build(self, width: float = 0.125) -> SegmentationDGCNN:
        return SegmentationDGCNN(k=6, width=width)


class TestSegmentationDGCNNWithNorms(EncoderTester):
    MINIMUM_POINTS = 6
    # Blocks with norms are made of the classification network's parts, whose test compiles and exports them.
    test_compiled_network_gives_the_same_features_and_gradients = None
    test_exported_program_takes_other_batches_and_sizes = None

    def build(self, width: float = 0.125) -> SegmentationDGCNN:
        return SegmentationDGCNN(k=6, width=width, edge_norm="batch")


def segmenter(encoder: torch.nn.Module, classes: int = 8, **options: float) -> PointSegmenter:
    head = PointSegmentationHead(encoder.local_channels, encoder.pooled_channels, classes, **options)
    return PointSegmenter(encoder, head)


def test_sizes_are_those_of_the_literature():
    network = segmenter(SegmentationDGCNN())
    encoder = network.encoder
    assert (encoder.local_channels, encoder.pooled_channels) == (192, 1024)
    reconstruction = PointReconstructionHead(192, 1024)
    assert sum(p.numel() for part in (network, reconstruction) for p in part.parameters()) == pytest.approx(
        1.85e6, rel=0.005
    )


def test_a_linear_block_equals_convolutions_of_every_edge():
    torch.manual_seed(0)
    block = LinearEdgeBlock(4, 16, 2).double()
    features = torch.randn(2, 12, 4, dtype=torch.float64, requires_grad=True)
    neighbours = knn(features, 5)
    found = block(features, neighbours)
    hidden = edge_features(features, neighbours)
    for layer in block.layers:
        hidden = torch.nn.functional.conv2d(hidden, layer.weight[:, :, None, None], layer.bias)
    expected = hidden.max(dim=-1).values.transpose(1, 2)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    inputs = [features, *block.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), inputs), torch.autograd.grad((expected * weight).sum(), inputs)
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("training", [True, False])
def test_a_normed_block_equals_the_textbook(training):
    torch.manual_seed(0)
    block = NormedEdgeBlock(4, 16, slope=0.2).double().train(training)
    for norm in (block.layer1.norm, block.layer2.norm):
        torch.nn.init.normal_(norm.weight)
    textbook = copy.deepcopy(block)
    features = torch.randn(2, 12, 4, dtype=torch.float64)
    neighbours = knn(features, 5)
    found = block(features, neighbours)
    edges = textbook.layer2.convolve(textbook.layer1.convolve(edge_features(features, neighbours)))
    torch.testing.assert_close(found, edges.max(dim=-1).values.transpose(1, 2))
    torch.testing.assert_close(block.layer2.norm.running_var, textbook.layer2.norm.running_var)


@pytest.mark.parametrize("encoder", [SegmentationDGCNN(k=5, width=0.125), PointNet(width=0.125)])
def test_every_point_gets_logits_from_its_own_and_the_clouds_features(encoder):
    torch.manual_seed(0)
    network = segmenter(encoder, width=0.125, slope=encoder.slope).eval()
    points = torch.randn(3, 20, 3)
    logits = network(points)
    assert logits.shape == (3, 8, 1, 20)
    head, features = network.head, encoder(points)
    together = torch.cat([features.local, features.pooled[:, None].expand(-1, 20, -1)], dim=-1)
    expected = head.logits(head.layer3(head.layer2(head.layer1(together))))
    torch.testing.assert_close(logits[:, :, 0], expected.transpose(1, 2), rtol=1e-4, atol=1e-5)
    order = torch.randperm(20)
    torch.testing.assert_close(network(points[:, order]), logits[..., order], rtol=1e-4, atol=1e-4)


def test_dropout_is_behind_the_first_two_layers_and_all_of_the_head_learns():
    torch.manual_seed(0)
    network = segmenter(SegmentationDGCNN(k=5, width=0.125), dropout=0.5, width=0.125)
    points = torch.randn(2, 20, 3)
    assert not torch.equal(network(points), network(points))
    network(points).square().mean().backward()
    assert [name for name, p in network.head.named_parameters() if p.grad is None or not p.grad.any()] == []
    still = segmenter(SegmentationDGCNN(k=5, width=0.125), dropout=0.0, width=0.125)
    assert torch.equal(still(points), still(points))


def test_defrec_takes_the_encoder_as_it_is():
    torch.manual_seed(0)
    encoder = SegmentationDGCNN(k=5, width=0.125)
    head = PointReconstructionHead(encoder.local_channels, encoder.pooled_channels, width=0.125, slope=encoder.slope)
    points = torch.nn.functional.normalize(torch.randn(3, 64, 3), dim=-1)
    loss = DefRec(head, region="ball").loss(
        encoder, points, SampleRandom([4, 5, 6], seed=0, stage=0, step=0, purpose="x")
    )
    assert loss.shape == (3,) and (loss > 0).all()
    loss.sum().backward()
    assert all(block.layers[0].weight.grad.any() for block in encoder.blocks)


@pytest.mark.parametrize("edge_norm", ["none", "batch"])
def test_repeated_points_and_small_clouds_are_finite(edge_norm):
    torch.manual_seed(0)
    network = segmenter(SegmentationDGCNN(k=8, width=0.125, edge_norm=edge_norm), width=0.125)
    points = torch.randn(2, 4, 3).repeat(1, 4, 1).requires_grad_()
    network(points).square().mean().backward()
    assert points.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="edge_norm must be one of none, batch, found 'layer'"):
        SegmentationDGCNN(edge_norm="layer")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="k must be at least 1"):
        SegmentationDGCNN(k=0)
    with pytest.raises(ValueError, match="classes must be at least 1"):
        PointSegmentationHead(8, 8, 0)
