import copy

import pytest
import torch
from torch import nn

from isthmus.models.layers import PointFeatures
from isthmus.models.pretext_heads import PointHead, QueryHead


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("training", [True, False])
def test_the_point_head_equals_the_form_that_repeats_the_cloud_at_every_point(training):
    head = PointHead(12, 10, 5, width=0.0625, slope=0.2).double().train(training)
    repeated = copy.deepcopy(head)
    local, pooled = torch.randn(3, 9, 12, dtype=torch.float64), torch.randn(3, 10, dtype=torch.float64)
    everything = torch.cat([local, pooled[:, None].expand(-1, 9, -1)], dim=-1)
    expected = repeated.output(repeated.layer3(repeated.layer2(repeated.layer1(everything))))
    found = head(PointFeatures(local, pooled))
    assert found.shape == (3, 9, 5)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(head.buffers(), repeated.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_query_head_is_a_plain_network_on_cloud_and_place():
    head = QueryHead(10, width=0.0625).double()
    written_out = nn.Sequential(head.layer1, nn.ReLU(), head.rest)
    pooled, places = torch.randn(3, 10, dtype=torch.float64), torch.rand(3, 7, 3, dtype=torch.float64)
    together = torch.cat([pooled[:, None].expand(-1, 7, -1), places], dim=-1)
    torch.testing.assert_close(head(pooled, places), written_out(together).squeeze(-1))


def test_the_query_head_has_the_published_layers():
    linears = [m for m in QueryHead(1024).modules() if isinstance(m, nn.Linear)]
    assert [m.in_features for m in linears] == [1027, 512, 256, 128] and linears[-1].out_features == 1
    assert not any(isinstance(m, nn.BatchNorm1d) for m in QueryHead(1024).modules())
