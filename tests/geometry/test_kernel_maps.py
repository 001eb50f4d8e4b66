from itertools import product

import pytest
import torch
from torch import Tensor

from isthmus.geometry.kernel_maps import KernelMap, strided_map, submanifold_map
from isthmus.geometry.voxels import unique_cells


def cells(count: int = 150, seed: int = 0, scale: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.randint(-scale, scale, (count, 3), generator=generator)
    return unique_cells(torch.cat([torch.randint(0, 3, (count, 1), generator=generator), xyz], dim=1))[0]


def triples(pairs: KernelMap) -> list[tuple[int, int, int]]:
    taps = torch.tensor(pairs.taps).repeat_interleave(torch.tensor(pairs.counts))
    return sorted(zip(taps.tolist(), pairs.source.tolist(), pairs.target.tolist(), strict=True))


def neighbours_by_hand(coordinates: Tensor) -> list[tuple[int, int, int]]:
    index = {tuple(cell): row for row, cell in enumerate(coordinates.tolist())}
    found = []
    for tap, (dx, dy, dz) in enumerate(product((-1, 0, 1), repeat=3)):
        for (sample, x, y, z), row in index.items():
            source = index.get((sample, x + dx, y + dy, z + dz))
            if source is not None and tap != 13:
                found.append((tap, source, row))
    return sorted(found)


def assert_groups_fit(pairs: KernelMap) -> None:
    for groups, rows in ((pairs.by_source, pairs.source), (pairs.by_target, pairs.target)):
        if groups.offsets is None:
            assert rows[groups.rows].tolist() == list(range(len(rows)))
        else:
            owner = torch.arange(len(groups.offsets) - 1).repeat_interleave(groups.offsets.diff())
            assert torch.equal(rows[groups.rows], owner)
        assert groups.rows.sort().values.tolist() == list(range(len(rows)))


FAR = torch.tensor([0, 2**60, -(2**59), 2**58])

PLACES = {
    "a dense box, where rows of keys touch": unique_cells(torch.tensor(list(product((0, 1), *[(0, 1, 2)] * 3))))[0],
    "scattered": cells(),
    "a corner of 4096^3 and the opposite one": unique_cells(
        torch.cat([cells(60), cells(60, seed=1) + torch.tensor([0, 4095, 4095, 4095])])
    )[0],
    "farther apart than 64 bits can number": unique_cells(torch.cat([cells(60), cells(60, 1) + FAR]))[0],
    "not contiguous in memory": cells().T.contiguous().T,
    "one": torch.tensor([[0, -7, 3, 2]]),
    "none": torch.empty(0, 4, dtype=torch.int64),
}


@pytest.mark.parametrize("place", PLACES)
def test_submanifold_pairs_are_those_of_a_dictionary(place):
    pairs = submanifold_map(PLACES[place])
    assert triples(pairs) == neighbours_by_hand(PLACES[place])
    assert pairs.volume == 27 and pairs.centre == 13
    assert_groups_fit(pairs)


@pytest.mark.parametrize("place", PLACES)
def test_strided_pairs_are_those_of_a_dictionary(place):
    coordinates = PLACES[place]
    coarse, pairs = strided_map(coordinates)
    parents = [(s, x // 2, y // 2, z // 2) for s, x, y, z in coordinates.tolist()]
    assert [tuple(cell) for cell in coarse.tolist()] == sorted(set(parents))
    index = {parent: row for row, parent in enumerate(sorted(set(parents)))}
    octants = [4 * (x % 2) + 2 * (y % 2) + z % 2 for _, x, y, z in coordinates.tolist()]
    assert triples(pairs) == sorted((o, row, index[p]) for row, (o, p) in enumerate(zip(octants, parents, strict=True)))
    assert pairs.volume == 8 and pairs.centre is None
    assert_groups_fit(pairs)
    assert_groups_fit(pairs.inverse())


def test_runs_are_the_pairs_weight_by_weight_without_empty_ones():
    pairs = submanifold_map(cells(20))
    assert all(run.end > run.start for run in pairs.runs)
    assert sum(run.end - run.start for run in pairs.runs) == len(pairs.source)
    for run in pairs.runs:
        assert torch.equal(run.source, pairs.source[run.start : run.end])
        assert torch.equal(run.target, pairs.target[run.start : run.end])
        assert run.end - run.start == pairs.counts[pairs.taps.index(run.tap)]


def test_the_inverse_reads_what_the_map_writes():
    _, pairs = strided_map(cells())
    back = pairs.inverse()
    assert triples(back) == sorted((tap, target, source) for tap, source, target in triples(pairs))
    assert triples(back.inverse()) == triples(pairs)


def test_the_search_of_the_cpu_and_of_other_devices_agree(monkeypatch):
    here = submanifold_map(cells())
    monkeypatch.setattr("isthmus.geometry.kernel_maps._search", torch.searchsorted)
    assert triples(submanifold_map(cells())) == triples(here)
