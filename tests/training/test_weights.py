from pathlib import Path

import pytest
import torch
from torch import nn

from isthmus.errors import RecipeError, RunError
from isthmus.training.weights import load_encoder


def encoder() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))


def test_what_fits_is_copied_and_everything_is_accounted_for(tmp_path: Path) -> None:
    given = {"network.encoder.0.weight": torch.ones(4, 3), "network.encoder.1.weight": torch.ones(7, 4),
             "network.encoder.extra": torch.ones(1), "network.head.weight": torch.ones(2)}  # fmt: skip
    torch.save({"weights": given}, tmp_path / "own.pt")
    net = encoder()
    bias = net[0].bias.clone()
    account = load_encoder(net, tmp_path / "own.pt")
    assert torch.equal(net[0].weight, torch.ones(4, 3)) and torch.equal(net[0].bias, bias)
    assert account.matched == ("0.weight",) and account.unused == ("extra",)
    assert account.absent == ("0.bias", "1.bias")
    assert account.misshapen == ("1.weight (file (7, 4), network (5, 4))",)
    assert str(account).startswith("1 of 4 keys matched; absent: 0.bias")


def test_safetensors_and_bare_state_dicts_are_read(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({"0.bias": torch.full((4,), 2.0)}, tmp_path / "own.safetensors")
    torch.save({"0.bias": torch.full((4,), 3.0)}, tmp_path / "own.pt")
    for name, value in (("own.safetensors", 2.0), ("own.pt", 3.0)):
        net = encoder()
        load_encoder(net, tmp_path / name)
        assert net[0].bias.tolist() == [value] * 4


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(RecipeError, match=r"no key fits; expected such as '0\.weight', found such as 'conv\.weight'"):
        load_encoder(encoder(), tmp_path / "other.pt")
    with pytest.raises(RecipeError, match="expected a file, found none"):
        load_encoder(encoder(), tmp_path / "nowhere.pt")


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"0.bias": Harmful()}, tmp_path / "evil.pt")
    with pytest.raises(RunError, match=r"evil\.pt: expected a checkpoint of tensors"):
        load_encoder(encoder(), tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()
