import copy

import pytest
import torch
from network_tester import EncoderTester

from isthmus.models.dgcnn import DGCNN
from isthmus.models.heads import ClassificationHead, PointReconstructionHead


class TestDGCNN(EncoderTester):
    MINIMUM_POINTS = 6

    def build(self, width: float = 0.125, edge_form: str = "split") -> DGCNN:
        return DGCNN(k=6, width=width, edge_form=edge_form)

    def test_sizes_are_those_of_the_literature(self):
        encoder = DGCNN()
        classifier = ClassificationHead(encoder.pooled_channels, 10, slope=encoder.slope)
        reconstruction = PointReconstructionHead(encoder.local_channels, encoder.pooled_channels)
        assert (encoder.local_channels, encoder.pooled_channels) == (512, 1024)
        sizes = [sum(p.numel() for p in part.parameters()) for part in (encoder, classifier, reconstruction)]
        assert sum(sizes[:2]) == pytest.approx(2.08e6, rel=0.01)
        assert sum(sizes) == pytest.approx(2.57e6, rel=0.01)

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 3e-5)])
    def test_split_form_equals_the_textbook(self, dtype, tolerance, training):
        split = self.trained().to(dtype).train(training)
        textbook = self.build(edge_form="plain").to(dtype).train(training)
        textbook.load_state_dict(split.state_dict())
        points, weight = self.points().to(dtype), torch.randn(split.pooled_channels, dtype=dtype)
        results = []
        for network in (split, textbook):
            own = points.clone().requires_grad_()
            features = network(own)
            ((features.pooled @ weight).sum() + features.local.square().mean()).backward()
            results.append([*features, *network.buffers(), own.grad, *(p.grad for p in network.parameters())])
        for pair in zip(*results, strict=True):
            found, expected = (tensor.detach().double() for tensor in pair)
            # Relative to the whole tensor: single gradients that cancel to nothing are rounding in both forms.
            assert (found - expected).norm() <= tolerance * max(1.0, float(expected.norm()))

    def test_weights_fit_both_forms(self):
        split, textbook = self.build(), self.build(edge_form="plain")
        shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in (split, textbook)]
        assert shapes[0] == shapes[1]

    def test_frozen_norms_keep_their_statistics_while_the_rest_trains(self):
        network = self.trained().train()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.eval()
        before = copy.deepcopy(network.state_dict())
        network(self.points())
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    def test_input_transform_can_be_left_out(self):
        with_transform = self.build()
        without = DGCNN(k=6, width=0.125, input_transform=False)
        without.load_state_dict(with_transform.state_dict(), strict=False)
        points = self.points()  # the transform starts at the identity
        torch.testing.assert_close(with_transform(points).pooled, without(points).pooled, rtol=1e-4, atol=1e-4)

    def test_too_few_points_are_named(self):
        with pytest.raises(ValueError, match="k must be between 1 and the 5 points of a cloud, found 6"):
            self.build()(torch.zeros(2, 5, 3))

    def test_unknown_form_is_named(self):
        with pytest.raises(ValueError, match='"split" or "plain", found \'fast\''):
            DGCNN(edge_form="fast")
