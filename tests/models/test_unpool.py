import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isthmus.models.unpool import max_pool, max_unpool

FORMATS = [torch.contiguous_format, torch.channels_last]


def maps(seed: int, *shape: int, values: int = 3, memory_format: torch.memory_format = FORMATS[0]) -> Tensor:
    """Maps of few different values, so that most windows have more than one maximum."""
    drawn = torch.randint(-1, values, shape, generator=torch.Generator().manual_seed(seed)).float()
    return drawn.contiguous(memory_format=memory_format)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 2**16), st.integers(0, 3), st.integers(1, 9), st.integers(1, 6), st.integers(1, 6),
    st.sampled_from(FORMATS),
)  # fmt: skip
def test_values_indices_and_gradients_are_those_of_torch(seed, batch, channels, height, width, memory_format):
    ours = maps(seed, batch, channels, 2 * height, 2 * width, memory_format=memory_format).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    found, index = max_pool(ours)
    expected, their_index = F.max_pool2d(theirs, 2, return_indices=True)
    assert torch.equal(found, expected) and torch.equal(index, their_index)
    scale = maps(seed + 1, *found.shape, values=9)
    found, expected = max_unpool(found * scale, index), F.max_unpool2d(expected * scale, their_index, 2)
    assert torch.equal(found, expected)
    weight = maps(seed + 2, *found.shape, values=9)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_first_of_equal_maxima_is_taken_by_hand():
    window = torch.tensor([[[[0.0, 7.0], [7.0, 7.0]]]], requires_grad=True)
    value, index = max_pool(window)
    assert value.item() == 7 and index.item() == 1
    value.sum().backward()
    assert window.grad.flatten().tolist() == [0, 1, 0, 0]
    assert max_unpool(torch.tensor([[[[5.0]]]]), index).flatten().tolist() == [0, 5, 0, 0]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_format_and_type_are_kept(memory_format, dtype):
    features = torch.randn(2, 8, 6, 4, dtype=dtype).contiguous(memory_format=memory_format)
    value, index = max_pool(features)
    whole = max_unpool(value, index)
    assert value.is_contiguous(memory_format=memory_format) and whole.is_contiguous(memory_format=memory_format)
    assert value.dtype == whole.dtype == dtype


def test_not_a_number_and_infinity_go_the_way_they_go_in_torch():
    features = torch.randn(1, 2, 4, 4)
    features[0, 0, 0, 1], features[0, 1, 2, 2], features[0, 1, 0, 0] = torch.nan, torch.inf, -torch.inf
    value, index = max_pool(features)
    expected, their_index = F.max_pool2d(features, 2, return_indices=True)
    torch.testing.assert_close(value, expected, rtol=0, atol=0, equal_nan=True)
    whole, their_whole = max_unpool(value, index), F.max_unpool2d(expected, their_index, 2)
    torch.testing.assert_close(whole, their_whole, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_first_and_second_derivatives(memory_format):
    torch.manual_seed(0)
    features = torch.randn(2, 3, 4, 4, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()

    def through(features: Tensor) -> Tensor:
        value, index = max_pool(features.sin())
        return max_unpool(value.square(), index)

    torch.autograd.gradcheck(through, features)
    torch.autograd.gradgradcheck(through, features)


def test_gradients_of_several_losses_can_be_taken_at_once():
    features = torch.randn(2, 3, 4, 4).requires_grad_()
    whole = max_unpool(*max_pool(features))
    weights = torch.randn(5, *whole.shape)
    (batched,) = torch.autograd.grad(whole, features, weights, is_grads_batched=True, retain_graph=True)
    singly = [torch.autograd.grad(whole, features, weight, retain_graph=True)[0] for weight in weights]
    assert torch.equal(batched, torch.stack(singly))


@pytest.mark.parametrize("memory_format", FORMATS)
def test_allowed_and_reproducible_where_only_deterministic_algorithms_are(memory_format):
    features = torch.randn(2, 8, 8, 8).contiguous(memory_format=memory_format).requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="deterministic"):
            F.max_unpool2d(*F.max_pool2d(features, 2, return_indices=True), 2)
        gradients = []
        for _ in range(2):
            whole = max_unpool(*max_pool(features))
            gradients += torch.autograd.grad(whole.square().sum(), features)
        assert torch.equal(*gradients)
    finally:
        torch.use_deterministic_algorithms(False)


def test_odd_sizes_and_foreign_indices_are_named():
    with pytest.raises(ValueError, match=r"even height and width, found shape \(1, 2, 4, 5\)"):
        max_pool(torch.zeros(1, 2, 4, 5))
    _, index = max_pool(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match=r"must agree, found \(1, 2, 3, 2\) and \(1, 2, 2, 2\)"):
        max_unpool(torch.zeros(1, 2, 3, 2), index)
