import pytest
import torch
from torch import nn

from isthmus.errors import RecipeError
from isthmus.training.optimisation import (
    build_optimizers,
    check_stages,
    freeze,
    learning_rate,
    load_moments,
    moments,
    training_mode,
)
from isthmus.training.recipe import StageSpec


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)

    def after(self, boundary: str) -> tuple[str, ...]:
        if boundary != "encoder":
            raise ValueError(f"expected one of the boundaries encoder, found {boundary!r}")
        return ("head",)


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
def test_schedules_are_torchs(schedule: str) -> None:
    stage = StageSpec(steps=50, schedule=schedule, learning_rate=0.1)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    if schedule == "cosine":
        reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    else:
        reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=50)
    for step in range(50):
        assert learning_rate(stage, step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), step
        optimizer.step()
        reference.step()


def test_warm_up_climbs_to_the_rate() -> None:
    stage = StageSpec(steps=20, schedule="constant", learning_rate=1.0, warmup_steps=4)
    assert [learning_rate(stage, s) for s in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_frozen_parts_keep_weights_and_statistics() -> None:
    net, stage = Net(), StageSpec(frozen=("encoder",))
    freeze(net, stage)
    training_mode(net, stage)
    before = {name: value.clone() for name, value in net.encoder.state_dict().items()}
    (optimizer,) = build_optimizers(net, stage)
    for _ in range(3):
        net.head(net.encoder(torch.randn(8, 3))).sum().backward()
        optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in net.encoder.state_dict().items())
    freeze(net, StageSpec())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_everything_behind_a_boundary_is_frozen() -> None:
    net, stage = Net(), StageSpec(frozen_after="encoder")
    freeze(net, stage)
    training_mode(net, stage)
    assert {name for name, p in net.named_parameters() if not p.requires_grad} == {"head.weight", "head.bias"}
    assert net.encoder.training and not net.head.training


def test_the_longest_prefix_sets_the_rate() -> None:
    stage = StageSpec(learning_rate_scale={"encoder": 0.1, "encoder.0": 0.5})
    (optimizer,) = build_optimizers(Net(), stage)
    groups = optimizer.param_groups
    assert {group["scale"]: sum(p.numel() for p in group["params"]) for group in groups} == {0.1: 8, 0.5: 16, 1.0: 10}


@pytest.mark.parametrize("field", ["frozen", "learning_rate_scale"])
def test_a_part_that_does_not_exist_is_named_with_the_nearest(field: str) -> None:
    value = ("encodr",) if field == "frozen" else {"encodr": 0.1}
    stage = StageSpec(**{field: value})
    with pytest.raises(RecipeError, match=f"{field}: no part of the method is called 'encodr'; did you mean 'encoder"):
        freeze(Net(), stage)
        build_optimizers(Net(), stage)


def test_kept_moments_do_not_bring_old_settings_along() -> None:
    net = Net()
    first = build_optimizers(net, StageSpec(weight_decay=0.1))
    net.head(net.encoder(torch.randn(4, 3))).sum().backward()
    first[0].step()
    second = build_optimizers(net, StageSpec(weight_decay=0.5, learning_rate=0.2))
    load_moments(net, second, moments(net, first))
    assert second[0].param_groups[0]["weight_decay"] == 0.5 and second[0].param_groups[0]["lr"] == 0.2
    assert second[0].state[net.head.weight]["step"] == 1


def test_moments_of_parameters_that_both_stages_train_are_kept() -> None:
    net = Net()
    first = build_optimizers(net, StageSpec(optimizers={"head": "sgd"}))
    assert [type(each).__name__ for each in first] == ["Adam", "SGD"]
    net.head(net.encoder(torch.randn(4, 3))).square().sum().backward()
    for each in first:
        each.step()
    frozen = StageSpec(name="second", frozen=("encoder.0",), optimizers={"head": "sgd"}, keep_optimizer=True)
    freeze(net, frozen)
    second = build_optimizers(net, frozen)
    saved = moments(net, first)
    load_moments(net, second, saved)
    kept = moments(net, second)
    assert set(kept) == {name for name in saved if not name.startswith("encoder.0")} and len(kept) < len(saved)
    for name, state in kept.items():
        assert state.keys() == saved[name].keys()
        assert all(
            torch.equal(torch.as_tensor(value), torch.as_tensor(saved[name][key])) for key, value in state.items()
        )


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"frozen": ("encodr",)}, "second.frozen: no part of the method is called 'encodr'"),
        (
            {"keep_optimizer": True, "optimizer": "sgd"},
            "second.keep_optimizer: expected an earlier stage with the same",
        ),
        ({"keep_optimizer": True, "optimizers": {"head": "sgd"}}, "second.keep_optimizer"),
        ({"frozen_after": "up2"}, "second.frozen_after: expected one of the boundaries encoder, found 'up2'"),
    ],
)
def test_mistakes_of_a_later_stage_are_found_before_the_first(changes: dict, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        check_stages(Net(), (StageSpec(name="first"), StageSpec(name="second", **changes)))


def test_freezing_everything_is_an_error() -> None:
    net, stage = Net(), StageSpec(frozen=("encoder", "head"))
    freeze(net, stage)
    with pytest.raises(RecipeError, match="nothing is left to train"):
        build_optimizers(net, stage)
