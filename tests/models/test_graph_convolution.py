import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.models.graph_convolution import ScoreGCN, correlated, normalised_adjacency, propagate


def embeddings(count: int, channels: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, channels, generator=generator)
    noise = torch.randn(count, channels, generator=generator)
    return centres[torch.arange(count) % 4] + 0.3 * noise


def slow_edges(values: np.ndarray, threshold: float, at_most: int) -> set[tuple[int, int]]:
    correlation = np.corrcoef(values)
    np.fill_diagonal(correlation, -np.inf)
    edges = set()
    for row in range(len(values)):
        for column in np.argsort(-correlation[row])[:at_most]:
            if correlation[row, column] > threshold:
                edges.add((row, int(column)))
    return edges


@settings(deadline=None, max_examples=25)
@given(
    st.integers(2, 40), st.integers(1, 12), st.sampled_from([-0.5, 0.8, 0.95]), st.integers(1, 45), st.integers(0, 99)
)
def test_neighbours_are_those_of_the_full_matrix(
    count: int, at_most: int, threshold: float, block: int, seed: int
) -> None:
    values = embeddings(count, seed=seed).double()
    edges = correlated(values, threshold=threshold, at_most=at_most, block=block)
    assert set(zip(*edges.tolist())) == slow_edges(values.numpy(), threshold, at_most)
    assert edges.shape[1] == len(set(zip(*edges.tolist()))) and (edges[0].diff() >= 0).all()


def test_samples_without_spread_or_company_have_no_neighbours() -> None:
    values = torch.ones(4, 5)
    values[3] = 1e4  # float32 rounding of the mean must not look like a direction
    assert correlated(values, threshold=-1.0 + 1e-3)[0].numel() == 12  # correlation 0 with everyone
    assert correlated(values).numel() == 0
    assert correlated(torch.randn(1, 5), threshold=-2.0).numel() == 0
    assert correlated(torch.zeros(0, 5)).shape == (2, 0)


def test_no_more_than_a_block_of_correlations_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 samples in blocks of 50: no tensor on the way has more than 50 x 3,000 entries."""
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for each in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(each, torch.Tensor) and each.layout == torch.strided:
                    largest = max(largest, each.numel())
            return result

    with Watch():
        edges = correlated(embeddings(3000, 8), block=50)
        adjacency = normalised_adjacency(edges, 3000)
    assert largest == 50 * 3000
    assert adjacency.layout == torch.sparse_csr and adjacency.values().numel() <= 3000 * 21


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.integers(0, 30), st.integers(0, 99))
def test_the_adjacency_is_the_normalised_one(count: int, number: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(count, (2, number), generator=generator)
    dense = np.eye(count)
    for row, column in zip(*edges.tolist()):
        dense[row, column] = dense[column, row] = 1
    degree = dense.sum(axis=1)
    expected = dense / np.sqrt(degree[:, None] * degree[None])
    np.testing.assert_allclose(normalised_adjacency(edges, count).to_dense().numpy(), expected, rtol=1e-6)


def test_propagation_and_its_gradient_are_those_of_the_dense_product() -> None:
    adjacency = normalised_adjacency(torch.tensor([[0, 1, 4], [1, 2, 0]]), 6)
    features, upstream = torch.randn(6, 3, requires_grad=True), torch.randn(6, 3)
    found = propagate(adjacency, features)
    dense = adjacency.to_dense()
    torch.testing.assert_close(found, dense @ features)
    (gradient,) = torch.autograd.grad(found, features, upstream)
    torch.testing.assert_close(gradient, dense.T @ upstream)


def network(seed: int = 0, hidden: int | None = None, dropout: float = 0.5) -> ScoreGCN:
    return ScoreGCN(6, 3, hidden=hidden, dropout=dropout, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("hidden", [None, 4])
def test_a_pass_is_three_graph_convolutions(hidden: int | None) -> None:
    values, scores = embeddings(20), torch.rand(20, 3)
    adjacency = normalised_adjacency(correlated(values, threshold=0.5), 20)
    gcn = network(hidden=hidden).eval()
    with torch.no_grad():
        for layer in (gcn.scores, gcn.layer1, gcn.layer2, gcn.layer3):
            layer.bias.normal_(generator=torch.Generator().manual_seed(1))
    dense = adjacency.to_dense()
    state = values + scores @ gcn.scores.weight.T + gcn.scores.bias
    state = (dense @ state @ gcn.layer1.weight.T + gcn.layer1.bias).relu()
    state = (dense @ state @ gcn.layer2.weight.T + gcn.layer2.bias).relu()
    expected = dense @ state @ gcn.layer3.weight.T + gcn.layer3.bias
    found = gcn(adjacency, gcn.spread(adjacency, values), scores)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert gcn.layer1.weight.shape == (hidden or 6, 6)


def test_gradients_reach_every_weight() -> None:
    values = embeddings(20)
    adjacency = normalised_adjacency(correlated(values, threshold=0.5), 20)
    gcn = network()
    gcn(adjacency, gcn.spread(adjacency, values), torch.rand(20, 3)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in gcn.parameters())


def test_weights_and_dropout_come_from_the_generator_alone() -> None:
    state = torch.get_rng_state()
    values, scores = embeddings(20), torch.rand(20, 3, generator=torch.Generator().manual_seed(5))
    adjacency = normalised_adjacency(correlated(values), 20)

    def passes(gcn: ScoreGCN) -> torch.Tensor:
        return torch.stack([gcn(adjacency, gcn.spread(adjacency, values), scores) for _ in range(2)])

    first, again, other = passes(network()), passes(network()), passes(network(seed=1))
    assert torch.equal(first, again) and not torch.allclose(first, other) and not torch.allclose(first[0], first[1])
    without = passes(network(dropout=0.0))
    assert torch.equal(without[0], without[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="expected embeddings"):
        correlated(torch.zeros(3))
    with pytest.raises(ValueError, match="at least 1, found 0 and 1024"):
        correlated(torch.zeros(3, 2), at_most=0)
