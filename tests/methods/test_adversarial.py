"""Adversaries at the taps of a network, beside the losses of its tasks."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dense_testing import batch, channels, gradients, tasks, total
from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.adversary import Adversary, self_information
from isthmus.methods.adversarial import AUXILIARY_WEIGHT, Adversarial, Tap
from isthmus.methods.multi_task import MultiTask
from isthmus.models.patch_discriminator import PatchDiscriminator
from isthmus.models.resnet_fpn import ResNetFPN

LATE = Progress(0, 0, 9, 10)


def network() -> ResNetFPN:
    torch.manual_seed(0)
    return ResNetFPN(channels(), layers=18, width=0.125, decoder_channels=64)


def domains(source: tuple[str, ...] = ("SN", "SN"), target: tuple[str, ...] = ("S", "S", "")) -> dict[str, Batch]:
    return {"source": batch(source), "target": replace(batch(target, seed=1, first=10), domain="target")}


def tap_channels() -> dict[str, int]:
    with torch.no_grad():
        found = network().eval()(torch.zeros(1, 3, 32, 32))
    return {name: tap.shape[1] for name, tap in found.taps.items()}


def method(*taps: Tap, game: str = "reversal", joint: bool = False) -> Adversarial:
    torch.manual_seed(0)
    sizes = {**tap_channels(), **{f"output/{n}": c for n, c in channels().items()}}
    adversaries = []
    for tap in taps:
        seen = channels()[tap.task] if tap.task else sizes[tap.part]
        judge = PatchDiscriminator(seen, layers=2, hidden=4)
        adversaries.append((tap, Adversary(tap.name, judge, game=game, weight=0.5)))  # type: ignore[arg-type]
    return Adversarial(network(), tasks(), adversaries, tap_channels(), reduction="sum", joint_batches=joint)


@pytest.mark.parametrize("joint", [False, True])
def test_the_losses_of_tasks_are_those_of_vanilla_multi_task_learning(joint: bool) -> None:
    ours = method(Tap("layer4"), joint=joint)(domains(), LATE)
    plain = MultiTask(network(), tasks(), reduction="sum", joint_batches=joint)(domains(), LATE)
    assert list(ours) == [*plain, "discriminator/layer4"]
    for name, loss in plain.items():
        torch.testing.assert_close(ours[name].sum, loss.sum)


def test_joint_batches_share_their_statistics_and_separate_ones_do_not() -> None:
    images = domains()
    joint, separate = MultiTask(network(), tasks(), joint_batches=True), MultiTask(network(), tasks())
    together = joint.network(torch.cat([each.inputs["image"] for each in images.values()])).outputs["normals"]
    found = joint.features(images)
    torch.testing.assert_close(torch.cat([each.outputs["normals"] for each in found.values()]), together)
    alone = separate.features(images)["target"].outputs["normals"]
    torch.testing.assert_close(alone, network()(images["target"].inputs["image"]).outputs["normals"])
    assert not torch.allclose(alone, found["target"].outputs["normals"])


def test_a_reversal_on_features_reaches_what_lies_before_the_tap_and_nothing_behind_it() -> None:
    model = method(Tap("layer4"))
    losses = model(domains(), LATE)
    total({"discriminator/layer4": losses["discriminator/layer4"]}).backward()
    reached = {name.split(".")[1] for name in gradients(model) if name.startswith("network.")}
    assert reached == {"stem", "layer1", "layer2", "layer3", "layer4"}
    assert any(name.startswith("adversaries.0.discriminator") for name in gradients(model))


def test_an_output_space_adversary_moves_the_network_by_target_images_only() -> None:
    model, data = method(Tap("output/normals"), game="non-saturating"), domains()
    data["source"].inputs["image"].requires_grad_()
    data["target"].inputs["image"].requires_grad_()
    losses = model(data, LATE)
    assert {"discriminator/output/normals", "adversary/output/normals"} <= losses.keys()
    total({"adversary/output/normals": losses["adversary/output/normals"]}).backward()
    assert data["source"].inputs["image"].grad is None and data["target"].inputs["image"].grad.any()
    found = gradients(model)
    assert "network.heads.normals.weight" in found and "network.heads.segmentation.weight" not in found
    assert not any(name.startswith("adversaries") for name in found)


def test_the_discriminator_of_outputs_sees_unit_normals_probabilities_and_entropy_maps() -> None:
    data = domains()
    model = method(Tap("output/normals"), Tap("output/segmentation", self_information=True), game="non-saturating")
    seen: dict[str, list[torch.Tensor]] = {}
    for adversary in model.adversaries:
        adversary.register_forward_pre_hook(lambda m, inputs: seen.__setitem__(m.name, list(inputs[:2])))
    model(data, LATE)
    features = method(Tap("layer4")).features(data)
    for index, domain in enumerate(("source", "target")):
        raw = features[domain].outputs
        torch.testing.assert_close(seen["output/normals"][index], F.normalize(raw["normals"], dim=1))
        expected = self_information(raw["segmentation"].softmax(dim=1))
        torch.testing.assert_close(seen["output/segmentation"][index], expected)


def test_regions_outside_of_the_object_are_zero_for_the_discriminator() -> None:
    data = domains()
    model = method(Tap("layer3", mask="segmentation"))
    seen = []
    model.adversaries[0].register_forward_pre_hook(lambda m, inputs: seen.extend(inputs[:2]))
    for each in data.values():
        each.labels["segmentation"][:] = 0
    model(data, LATE)
    labelled = data["target"].present["segmentation"]
    assert not seen[0].any() and not seen[1][labelled].any() and seen[1][~labelled].any()


def test_auxiliary_heads_learn_from_the_labels_and_are_shown_to_their_own_adversary() -> None:
    model, data = method(Tap("output/normals"), Tap("layer4/normals"), game="non-saturating"), domains()
    losses = model(data, LATE)
    features = model.features(data)["source"]
    head = model.auxiliary["layer4"]["normals"]
    raw = F.interpolate(head(features.taps["layer4"]), data["source"].inputs["image"].shape[2:], mode="bilinear")
    expected = tasks()["normals"].loss(raw, data["source"].labels["normals"], data["source"].valid["normals"]).sum()
    loss = losses["normals@layer4/source"]
    torch.testing.assert_close(loss.sum, expected)
    assert loss.coefficient == AUXILIARY_WEIGHT
    total({"adversary/layer4/normals": losses["adversary/layer4/normals"]}).backward()
    assert "auxiliary.layer4.normals.weight" in gradients(model)


@pytest.mark.parametrize("boundary, frozen", [("layer3", True), ("layer4", True), ("up1", False), ("up2", False)])
def test_an_auxiliary_head_lies_behind_the_part_that_it_hangs_on(boundary: str, frozen: bool) -> None:
    behind = method(Tap("layer4/normals"), game="non-saturating").after(boundary)
    assert behind[-1] == "auxiliary.layer4" if frozen else not any("auxiliary" in name for name in behind)
    assert "network.heads" in behind


def test_without_a_target_batch_there_is_no_game() -> None:
    model = method(Tap("layer4"))
    losses = model({"source": domains()["source"]}, LATE)
    assert not any("discriminator" in name for name in losses)
    assert torch.isnan(torch.tensor(model.measures()["accuracy/layer4"]))
    model(domains(), LATE)
    assert 0 <= model.measures()["accuracy/layer4"] <= 1
