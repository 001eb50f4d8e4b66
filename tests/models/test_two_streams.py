import pytest
import torch
from torch import nn

from isthmus.models.deformable_patch import DeformablePatch
from isthmus.models.sparse_unet import SparseUNet
from isthmus.models.two_streams import TwoStreams, average, log_renormalised
from isthmus.models.unet_resnet import UNetResNet
from stream_testing import IMAGE_CHANNELS, POINT_CHANNELS, Points, batch, distributions, moved_patch, network

SMALL = (12, 5)


def real(offsets: str | None = None, size: int = 5, **options: object) -> TwoStreams:
    """Both real networks with few channels, in eval mode."""
    torch.manual_seed(0)
    image, points = UNetResNet(18, 0.125, dropout=0.0), SparseUNet(channels=4, levels=2, voxel_size=0.5)
    torch.manual_seed(1)
    patch = DeformablePatch(image.out_channels, size, offsets) if offsets else None
    torch.manual_seed(2)
    return TwoStreams(4, image, points, patch=patch, **options).eval()


def test_both_streams_say_something_of_every_point():
    found = network(mimicry=True)(batch().inputs)
    assert tuple(found.logits) == tuple(found.features) == tuple(found.mimicry) == ("2D", "3D")
    assert all(values.shape == (4, 4, 1, 11) for values in (*found.logits.values(), *found.mimicry.values()))
    assert found.features["2D"].shape == (4, 11, IMAGE_CHANNELS) and found.features["3D"].shape == (
        4,
        11,
        POINT_CHANNELS,
    )
    assert found.extremes == {}


def test_features_are_those_of_the_pixel_of_the_point_and_logits_those_of_its_classifier():
    streams, inputs = network(), batch().inputs
    maps, found = streams.networks["2D"](inputs["image"]), streams(inputs)
    for frame in range(4):
        for n in range(11):
            if inputs["present_points"][frame, n]:
                row, column = (int(place) for place in inputs["pixels"][frame, n])
                torch.testing.assert_close(found.features["2D"][frame, n], maps[frame, :, row, column])
                expected = streams.classifiers["2D"](maps[frame, :, row, column])
                torch.testing.assert_close(found.logits["2D"][frame, :, 0, n], expected)
            else:
                assert not found.features["2D"][frame, n].any() and not found.features["3D"][frame, n].any()


@pytest.mark.parametrize("pooled", ["features", "probabilities"])
@pytest.mark.parametrize("extremes", ["shared", "own"])
def test_offsets_of_zero_are_the_fixed_patch_through_both_streams(extremes, pooled):
    """Predictions and gradients; learned offsets start at zero."""
    results = []
    for offsets in ("learned", "zero"):
        streams = real(offsets, extremes=extremes, pooled=pooled, mimicry=True)
        found = streams(batch(counts=SMALL).inputs)
        (found.logits["2D"].square().sum() + sum(each.square().sum() for each in found.extremes.values())).backward()
        gradients = {name: p.grad for name, p in streams.named_parameters() if "offset" not in name}
        results.append((found, {name: each for name, each in gradients.items() if each is not None}))
    for one, other in zip(results[0][0], results[1][0]):
        assert one.keys() == other.keys()
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*(each[1] for each in results), rtol=1e-4, atol=1e-4)
    assert results[0][0].extremes.keys() == {"max", "min"}


LINKS = {
    "pixel": {},
    "square": {"offsets": "zero"},
    "deformed": {"offsets": "learned"},
    "own": {"offsets": "learned", "extremes": "own"},
    "probabilities": {"offsets": "learned", "pooled": "probabilities"},
}


@pytest.mark.parametrize("link", LINKS)
def test_a_prediction_is_bit_for_bit_what_training_sees(link):
    streams, inputs = real(mimicry=True, **LINKS[link]), batch(counts=SMALL).inputs
    if streams.patch is not None and streams.patch.offset is not None:
        nn.init.normal_(streams.patch.offset.bias)
    found, logits = streams(inputs), streams.predict(inputs)
    assert logits.keys() == found.logits.keys() == {"2D", "3D"}
    assert all(torch.equal(logits[name], found.logits[name]) for name in logits)


@pytest.mark.parametrize("pooled", ["features", "probabilities"])
def test_a_prediction_works_out_neither_extremes_nor_mimicry(pooled):
    streams = real("learned", extremes="own", pooled=pooled, mimicry=True)
    ran: list[str] = []
    for name, module in streams.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        streams.predict(batch(counts=SMALL).inputs)
    assert {"networks.2D", "networks.3D", "classifiers.3D"} <= set(ran)
    assert not [name for name in ran if name.startswith(("mimicry", "extremes", "patch"))]
    # Once: to pool probabilities it would see every pixel as well.
    assert ran.count("classifiers.2D") == 1


def test_a_patch_of_one_pixel_is_the_pixel():
    inputs = batch(counts=SMALL).inputs
    plain, patch = real()(inputs), real("zero", 1)(inputs)
    torch.testing.assert_close(plain.logits, patch.logits)
    for each in patch.extremes.values():
        torch.testing.assert_close(each, patch.logits["2D"])


def test_a_moved_patch_says_something_else():
    inputs = batch().inputs
    fixed, moved = network(patch=DeformablePatch(IMAGE_CHANNELS, 3, "zero")), network(patch=moved_patch())
    moved.classifiers.load_state_dict(fixed.classifiers.state_dict())
    moved.networks.load_state_dict(fixed.networks.state_dict())
    assert not torch.allclose(fixed(inputs).extremes["max"], moved(inputs).extremes["max"], atol=1e-3)


def test_extremes_are_classified_by_one_classifier_or_each_by_its_own():
    inputs, patch = batch().inputs, DeformablePatch(IMAGE_CHANNELS, 3, "zero")
    shared, own = network(patch=patch), network(patch=patch, extremes="own")
    assert not shared.extremes and own.extremes.keys() == {"max", "min"}
    own.networks.load_state_dict(shared.networks.state_dict())
    for head in own.extremes.values():
        head.load_state_dict(shared.classifiers["2D"].state_dict())
    torch.testing.assert_close(shared(inputs).extremes, own(inputs).extremes)
    nn.init.zeros_(own.extremes["max"].weight)
    assert not torch.allclose(shared(inputs).extremes["max"], own(inputs).extremes["max"])


def test_pooled_probabilities_are_distributions_of_the_extremes():
    streams = network(patch=DeformablePatch(IMAGE_CHANNELS, 3, "zero"), pooled="probabilities")
    inputs = batch().inputs
    found = streams(inputs)
    scores = streams.classifiers["2D"](streams.networks["2D"](inputs["image"]).permute(0, 2, 3, 1)).softmax(dim=3)
    frame, n = 0, 3
    row, column = (int(place) for place in inputs["pixels"][frame, n])
    patch = scores[frame, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].reshape(-1, 4)
    for name, end in (("max", patch.amax(dim=0)), ("min", patch.amin(dim=0))):
        torch.testing.assert_close(found.extremes[name][frame, :, 0, n].exp(), end / end.sum())


def test_renormalised_scores_add_up_to_one_and_stay_finite():
    scores = torch.tensor([[0.5, 0.9, 0.2], [0.0, 0.0, 0.0]], requires_grad=True)
    logs = log_renormalised(scores)
    torch.testing.assert_close(logs.exp().sum(dim=1), torch.ones(2))
    torch.testing.assert_close(logs[0].exp().detach(), torch.tensor([0.5, 0.9, 0.2]) / 1.6)
    logs.sum().backward()
    assert scores.grad.isfinite().all()
    torch.testing.assert_close(logs[1].exp().detach(), torch.full((3,), 1 / 3))


def test_the_average_is_of_probabilities_not_of_logits():
    torch.manual_seed(0)
    logits = {name: 4 * torch.randn(2, 3, 1, 5) for name in ("2D", "3D")}
    there = torch.ones(2, 5, dtype=torch.bool)
    one, two, both = (distributions(each, there) for each in (*logits.values(), average(logits)))
    for frame in range(2):
        for n in range(5):
            torch.testing.assert_close(both[frame][n], (one[frame][n] + two[frame][n]) / 2)


def test_sweeps_alone_and_images_alone():
    inputs = batch().inputs
    sweeps, images = TwoStreams(4, None, Points()), TwoStreams(4, nn.Conv2d(3, 6, 1), None)
    assert sweeps.streams == ("3D",) and images.streams == ("2D",)
    bare = {name: inputs[name] for name in ("points", "present_points")}
    assert sweeps(bare).logits.keys() == {"3D"}
    assert images(inputs).logits.keys() == {"2D"}
    assert sweeps.predict(bare).keys() == {"3D"} and images.predict(inputs).keys() == {"2D"}
    for call in (images, images.predict):
        with pytest.raises(ValueError, match="image: the 2D stream expected images"):
            call(bare)


def test_impossible_streams_are_refused():
    with pytest.raises(ValueError, match="found neither"):
        TwoStreams(4, None, None)
    with pytest.raises(ValueError, match="patch: expected an image network"):
        TwoStreams(4, None, Points(), patch=DeformablePatch(6))


def test_a_batch_of_one_and_a_batch_without_a_point():
    streams = real("learned", mimicry=True).train()
    inputs = batch(counts=(40,)).inputs
    inputs["image"] = torch.rand(1, 3, 40, 40)
    assert all(each.isfinite().all() for each in streams(inputs).logits.values())
    inputs["present_points"] = torch.zeros_like(inputs["present_points"])
    found = streams(inputs)
    sum(each.square().sum() for each in (*found.logits.values(), *found.extremes.values())).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in streams.parameters())
