import pytest
import torch

from isthmus.gates.memory import SkewnessMemory

NAN = float("nan")


def test_the_first_score_is_taken_and_later_ones_enter_slowly() -> None:
    memory = SkewnessMemory({"source": 5, "target": 2}, momentum=0.75)
    assert memory.recall("source", torch.arange(5)).isnan().all()
    memory.update("source", torch.tensor([3, 1]), torch.tensor([2.0, -1.0]))
    memory.update("source", torch.tensor([3, 0]), torch.tensor([4.0, 8.0]))
    expected = torch.tensor([8.0, -1.0, NAN, 0.75 * 2 + 0.25 * 4, NAN])
    torch.testing.assert_close(memory.recall("source", torch.arange(5)), expected, equal_nan=True)
    torch.testing.assert_close(memory.recall("source", torch.tensor([3, 3])), torch.tensor([2.5, 2.5]))
    assert memory.recall("target", torch.arange(2)).isnan().all()
    memory.forget("source")
    assert memory.recall("source", torch.arange(5)).isnan().all()


def test_scores_that_are_not_finite_change_nothing_and_repeats_enter_once() -> None:
    memory = SkewnessMemory({"source": 3}, momentum=0.5)
    memory.update("source", torch.tensor([0, 1, 2]), torch.tensor([1.0, NAN, 3.0]))
    memory.update("source", torch.tensor([0, 1, 2, 2]), torch.tensor([NAN, float("inf"), 5.0, 7.0]))
    expected = torch.tensor([1.0, NAN, 0.5 * 3 + 0.5 * 6])
    torch.testing.assert_close(memory.recall("source", torch.arange(3)), expected, equal_nan=True)


def test_no_momentum_remembers_the_last_score() -> None:
    memory = SkewnessMemory({"source": 1}, momentum=0.0)
    for score in (1.0, -7.0):
        memory.update("source", torch.zeros(1, dtype=torch.long), torch.tensor([score]))
    assert memory.recall("source", torch.zeros(1, dtype=torch.long)).item() == -7.0


def test_it_is_saved_with_the_weights_and_loads_into_one_of_unknown_size() -> None:
    memory = SkewnessMemory({"source": 3, "target": 2})
    memory.update("target", torch.tensor([1]), torch.tensor([0.5]))
    for fresh in (SkewnessMemory({"source": 3, "target": 2}), SkewnessMemory({"source": 0, "target": 0})):
        fresh.load_state_dict(memory.state_dict())
        torch.testing.assert_close(fresh.recall("target", torch.arange(2)), torch.tensor([NAN, 0.5]), equal_nan=True)
        assert len(list(fresh.parameters())) == 0


def test_a_momentum_of_one_would_never_learn() -> None:
    with pytest.raises(ValueError, match=r"expected a momentum in \[0, 1\), found 1"):
        SkewnessMemory({"source": 1}, momentum=1.0)
