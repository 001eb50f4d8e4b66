import pytest
import torch
from network_tester import EncoderTester
from torch import nn

from isthmus.models.heads import ClassificationHead, PointReconstructionHead
from isthmus.models.pointnet import PointNet


class TestPointNet(EncoderTester):
    def build(self, width: float = 0.125) -> PointNet:
        return PointNet(width=width)

    def test_sizes_are_those_of_the_literature(self):
        encoder = PointNet()
        classifier = ClassificationHead(encoder.pooled_channels, 10, slope=encoder.slope)
        reconstruction = PointReconstructionHead(encoder.local_channels, encoder.pooled_channels)
        assert (encoder.local_channels, encoder.pooled_channels) == (320, 1024)
        sizes = [sum(p.numel() for p in part.parameters()) for part in (encoder, classifier, reconstruction)]
        assert sum(sizes[:2]) == pytest.approx(3.47e6, rel=0.01)
        assert sum(sizes) == pytest.approx(3.92e6, rel=0.01)

    def test_transforms_start_at_the_identity(self):
        with_transforms = PointNet(width=0.125)
        without = PointNet(width=0.125, input_transform=False, feature_transform=False)
        without.load_state_dict(with_transforms.state_dict(), strict=False)
        points = self.points()
        torch.testing.assert_close(with_transforms(points).pooled, without(points).pooled)

    def test_gradients_of_each_sample_at_once_equal_those_one_by_one(self):
        network = nn.Sequential(self.trained())
        labels_weight = torch.randn(network[0].pooled_channels)
        parameters = {name: p.detach() for name, p in network.named_parameters()}
        buffers = dict(network.named_buffers())

        def loss(parameters: dict, cloud: torch.Tensor) -> torch.Tensor:
            features = torch.func.functional_call(network, (parameters, buffers), (cloud.unsqueeze(0),))
            return (features.pooled @ labels_weight).square().sum() + features.local.square().mean()

        points = self.points(3)
        together = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(None, 0))(parameters, points)
        for i in range(3):
            alone = torch.func.grad(loss, argnums=(0, 1))(parameters, points[i])
            torch.testing.assert_close(together[1][i], alone[1], rtol=1e-3, atol=1e-4)
            for name, gradient in alone[0].items():
                scale = float(gradient.abs().max())
                torch.testing.assert_close(together[0][name][i], gradient, rtol=1e-3, atol=1e-5 * scale)
