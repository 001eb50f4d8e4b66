import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.training.points.graph_refinement import Refined, label_weights, merge, refine


def groups(count: int = 90, wrong: float = 0.2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings of three well separated groups, class scores of which some are confidently wrong, and the truth."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(count) % 3
    centres = torch.randn(3, 16, generator=generator)
    embeddings = centres[truth] + 0.05 * torch.randn(count, 16, generator=generator)
    said = truth.where(torch.rand(count, generator=generator) >= wrong, (truth + 1) % 3)
    scores = torch.full((count, 3), 0.1)
    scores[torch.arange(count), said] = 0.8
    return embeddings, scores, truth


def test_neighbours_correct_wrong_predictions() -> None:
    embeddings, scores, truth = groups()
    before = (scores.argmax(dim=1) == truth).float().mean()
    refined = refine(embeddings, scores, seed=0, steps=60, learning_rate=1e-2)
    after = (refined.labels == truth).float().mean()
    assert before < 0.85 and after > 0.97
    assert ((refined.confidence > 1 / 3) & (refined.confidence <= 1)).all()


def test_without_edges_it_reproduces_the_predictions() -> None:
    embeddings, scores, _ = groups(30)
    refined = refine(embeddings, scores, seed=0, steps=120, learning_rate=1e-2, threshold=1.5, hide=0.0, dropout=0.0)
    assert torch.equal(refined.labels, scores.argmax(dim=1))


def test_a_seed_decides_everything_and_torch_s_own_generator_nothing() -> None:
    embeddings, scores, _ = groups(30)
    results = []
    for own in (1, 2):
        torch.manual_seed(own)
        state = torch.get_rng_state()
        results.append(refine(embeddings, scores, seed=3, steps=5))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(results[0].confidence, results[1].confidence)
    assert not torch.equal(refine(embeddings, scores, seed=4, steps=5).confidence, results[0].confidence)


def test_one_batch_is_the_published_form_and_several_correct_as_well() -> None:
    embeddings, scores, truth = groups()
    published = refine(embeddings, scores, seed=3, steps=5, batch=None)
    assert torch.equal(refine(embeddings, scores, seed=3, steps=5, batch=90).confidence, published.confidence)
    assert torch.equal(refine(embeddings, scores, seed=3, steps=5).confidence, published.confidence)
    parts = [refine(embeddings, scores, seed=3, steps=60, learning_rate=1e-2, batch=30) for _ in range(2)]
    assert torch.equal(parts[0].confidence, parts[1].confidence)
    assert (parts[0].labels == truth).float().mean() > 0.97


def test_a_step_holds_a_batch_and_never_a_square_of_the_samples() -> None:
    """Beside embeddings and the final pass, N = 2,000, nothing in a step of 100 has more rows; no tensor is N x N."""
    largest, trained = 0, set()

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for each in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(each, torch.Tensor) and each.layout == torch.strided:
                    largest = max(largest, each.numel())
            if function is torch.nn.functional.cross_entropy:
                trained.add(len(args[0]))
            return result

    generator = torch.Generator().manual_seed(0)
    embeddings, scores = torch.randn(2000, 8, generator=generator), torch.rand(2000, 3, generator=generator)
    with Watch():
        refine(embeddings, scores, seed=0, steps=25, batch=100, block=50, threshold=0.8)
    assert trained == {100} and largest <= 50 * 2000


@pytest.mark.parametrize(
    "option", [{"hide": 0.5}, {"dropout": 0.0}, {"hidden": 4}, {"weight_decay": 0.5}, {"at_most": 1}, {"batch": 10}]
)
def test_every_option_changes_the_result(option: dict[str, float]) -> None:
    embeddings, scores, _ = groups(30)
    plain = refine(embeddings, scores, seed=3, steps=5)
    assert not torch.allclose(refine(embeddings, scores, seed=3, steps=5, **option).confidence, plain.confidence)  # type: ignore[arg-type]


def test_it_trains_inside_no_grad_and_under_autocast() -> None:
    embeddings, scores, _ = groups(30)
    expected = refine(embeddings, scores, seed=3, steps=5)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = refine(embeddings.bfloat16(), scores, seed=3, steps=5)
    assert found.confidence.dtype == torch.float32
    torch.testing.assert_close(found.confidence, expected.confidence, rtol=0.05, atol=0.01)


def test_nothing_can_be_refined_and_bad_shapes_are_refused() -> None:
    assert len(refine(torch.zeros(0, 4), torch.zeros(0, 2), seed=0).labels) == 0
    with pytest.raises(ValueError, match="expected scores"):
        refine(torch.zeros(3, 4), torch.zeros(2, 2), seed=0)
    with pytest.raises(ValueError, match="hide"):
        refine(torch.zeros(3, 4), torch.zeros(3, 2), seed=0, hide=1.0)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.floats(0, 1, width=32)), max_size=20), st.floats(0, 1)
)
def test_the_surest_of_every_class_are_taken_over(rows: list[tuple[int, int, float]], share: float) -> None:
    predicted = torch.tensor([row[0] for row in rows], dtype=torch.long)
    labels = torch.tensor([row[1] for row in rows], dtype=torch.long)
    confidence = torch.tensor([row[2] for row in rows])
    merged = merge(predicted, Refined(labels, confidence), share)
    for label in range(3):
        members = [i for i, row in enumerate(rows) if row[1] == label]
        surest = sorted(members, key=lambda i: -rows[i][2])[: math.ceil(share * len(members))]
        assert set(surest) == {i for i in members if merged.confident[i]}
    for i in range(len(rows)):
        assert merged.labels[i] == (labels[i] if merged.confident[i] else predicted[i])


def test_labels_that_are_not_confident_weigh_a_fifth() -> None:
    assert label_weights(torch.tensor([True, False])).tolist() == pytest.approx([1.0, 0.2])
    with pytest.raises(ValueError, match="expected a share"):
        merge(torch.zeros(1, dtype=torch.long), Refined(torch.zeros(1, dtype=torch.long), torch.ones(1)), 1.5)
