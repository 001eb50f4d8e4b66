from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from isthmus.models.graph_batches import edges_within, graph_batches, neighbours_together
from isthmus.models.graph_convolution import ScoreGCN, normalised_adjacency


def random_edges(count: int, number: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(count, (2, number), generator=torch.Generator().manual_seed(seed))


def rings(number: int, size: int) -> torch.Tensor:
    """Rings of nodes that are not joined to each other, in a random order."""
    node = torch.arange(number * size)
    onward = node - node % size + (node + 1) % size
    order = torch.randperm(len(node), generator=torch.Generator().manual_seed(1))
    return order[torch.stack([node, onward])]


def own(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(0, 80), st.integers(1, 70), st.integers(1, 20), st.integers(0, 9))
def test_every_node_is_in_one_batch_of_an_epoch_and_no_batch_too_large(
    count: int, number: int, size: int, pieces: int, seed: int
) -> None:
    batches = graph_batches(random_edges(count, number), count, size, generator=own(seed), pieces=pieces)
    steps = -(-count // size)
    for _ in range(2):
        epoch = [batch.nodes for batch in islice(batches, steps)]
        assert torch.cat(epoch).sort().values.tolist() == list(range(count))
        lengths = [len(nodes) for nodes in epoch]
        assert min(lengths) >= 1 and max(lengths) <= size and max(lengths) - min(lengths) <= 1


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 30), st.integers(0, 60), st.integers(1, 12))
def test_a_batch_has_the_edges_among_its_nodes_and_its_own_degrees(count: int, number: int, size: int) -> None:
    edges = random_edges(count, number)
    joined = torch.eye(count)
    joined[edges[0], edges[1]] = joined[edges[1], edges[0]] = 1
    for nodes, adjacency in islice(graph_batches(edges, count, size, generator=own(), pieces=2), 8):
        assert (nodes.diff() > 0).all()
        part = joined[nodes][:, nodes]
        scale = part.sum(dim=1).rsqrt()
        torch.testing.assert_close(adjacency.to_dense(), scale[:, None] * part * scale)


@pytest.mark.parametrize("size", [None, 12, 100])
def test_a_graph_that_fits_is_one_batch_and_draws_nothing(size: int | None) -> None:
    edges, generator = random_edges(12, 20), own()
    state = generator.get_state()
    for nodes, adjacency in islice(graph_batches(edges, 12, size, generator=generator), 2):
        assert nodes.tolist() == list(range(12))
        assert torch.equal(adjacency.to_dense(), normalised_adjacency(edges, 12).to_dense())
    assert torch.equal(generator.get_state(), state)


def test_rings_stay_whole_and_their_passes_and_gradients_are_those_of_the_whole_graph() -> None:
    """8 rings of 6 in batches of 12: nothing is cut, so the gradients of an epoch add up to that of the graph."""
    edges, count = rings(8, 6), 48
    gcn = ScoreGCN(5, 3, dropout=0.0, generator=own())
    values, scores, target = torch.randn(count, 5), torch.rand(count, 3), torch.arange(count) % 3
    whole = normalised_adjacency(edges, count)
    spread = gcn.spread(whole, values)
    logits = gcn(whole, spread, scores)
    weights = list(gcn.parameters())
    expected = torch.autograd.grad(F.cross_entropy(logits, target), weights)
    found = [torch.zeros_like(weight) for weight in weights]
    for nodes, adjacency in islice(graph_batches(edges, count, 12, generator=own(), pieces=2), 4):
        said = gcn(adjacency, (spread[0][nodes], spread[1][nodes]), scores[nodes])
        torch.testing.assert_close(said, logits[nodes])
        for total, part in zip(found, torch.autograd.grad(F.cross_entropy(said, target[nodes]), weights), strict=True):
            total += part / 4
    torch.testing.assert_close(found, list(expected))


def test_neighbours_come_together() -> None:
    """A grid of 20 x 20 in random order: batches keep most edges, those of nodes taken by chance a fifth."""
    place = torch.arange(400)
    right, below = place[place % 20 < 19], place[place < 380]
    grid = torch.cat([torch.stack([right, right + 1]), torch.stack([below, below + 20])], dim=1)
    order = torch.randperm(400, generator=own())
    edges = order[grid]
    assert neighbours_together(edges, 400).sort().values.tolist() == place.tolist()
    epoch = list(islice(graph_batches(edges, 400, 80, generator=own(), pieces=2), 5))
    kept = sum(edges_within(edges, batch.nodes, 400).shape[1] for batch in epoch) / edges.shape[1]
    assert kept > 0.6
    chance = [edges_within(edges, nodes, 400).shape[1] for nodes in place.split(80)]
    assert sum(chance) / edges.shape[1] < 0.3


def test_the_generator_alone_decides_and_epochs_differ() -> None:
    edges = random_edges(60, 90)
    state = torch.get_rng_state()

    def first(seed: int) -> list[list[int]]:
        return [batch.nodes.tolist() for batch in islice(graph_batches(edges, 60, 20, generator=own(seed)), 6)]

    assert first(0) == first(0) != first(1)
    assert sorted(first(0)[:3]) != sorted(first(0)[3:])
    assert torch.equal(torch.get_rng_state(), state)


def test_bad_arguments_are_refused() -> None:
    for count, size, pieces in ((0, 4, 1), (4, 0, 1), (4, 2, 0)):
        with pytest.raises(ValueError, match="graph batches: expected 1 or more"):
            next(graph_batches(torch.zeros(2, 0, dtype=torch.long), count, size, generator=own(), pieces=pieces))
