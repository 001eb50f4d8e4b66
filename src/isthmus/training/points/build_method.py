"""From a recipe to its method."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from isthmus.data.views import StrongView, View, WeakView
from isthmus.errors import RecipeError
from isthmus.methods.base import Method
from isthmus.methods.dann import DANN
from isthmus.methods.dfan import DFAN
from isthmus.methods.gated import GatingOptions
from isthmus.methods.pointdan import PointDAN
from isthmus.methods.self_distillation import SelfDistillation
from isthmus.methods.self_supervised import SelfSupervised
from isthmus.methods.supervised import Supervised
from isthmus.models.classifier import PointClassifier
from isthmus.models.dgcnn_segmentation import PointSegmenter
from isthmus.models.layers import scaled
from isthmus.models.node_attention import NodeAttention, SelfAdaptiveNodes
from isthmus.models.point_discriminator import PointDiscriminator
from isthmus.tasks.classification import Classification
from isthmus.tasks.shape_parts import ShapeParts
from isthmus.training.points.build_gating import build_gate, build_memory, build_weighting
from isthmus.training.points.build_network import Encoder, build_classifier, build_encoder, build_head, build_segmenter
from isthmus.training.points.build_pretext import build_pretext
from isthmus.training.points.method_specs import (
    CustomSpec,
    DANNSpec,
    DFANSpec,
    PointDANSpec,
    SelfDistillationSpec,
    SelfSupervisedSpec,
    StrongViewSpec,
    SupervisedSpec,
)
from isthmus.training.points.recipe import PointRecipe

NODE_CHANNELS = 64
"""Of a self-adaptive node, scaled by the network's width."""


def build_task(recipe: PointRecipe, label_smoothing: float = 0.0) -> Classification | ShapeParts:
    """What is predicted: a class of each cloud, or of each of its points."""
    if recipe.predicts == "parts":
        return ShapeParts(recipe.classes)
    return Classification(recipe.classes, label_smoothing=label_smoothing)


def build_method(recipe: PointRecipe, samples: Mapping[str, int] | None = None) -> Method:
    """The method with freshly initialised networks, the same for the same seed.

    ``samples`` are the numbers of clouds in each domain's store, which a gate's memory wants to know in training.
    """
    spec = recipe.method
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        match spec:
            case SupervisedSpec():
                return _supervised(recipe, spec)
            case SelfSupervisedSpec():
                return _self_supervised(recipe, spec, samples or {})
            case SelfDistillationSpec():
                return _self_distillation(recipe, spec, samples or {})
            case DANNSpec():
                return _dann(recipe, spec)
            case PointDANSpec():
                return _pointdan(recipe, spec)
            case DFANSpec():
                return _dfan(recipe, spec)
            case CustomSpec():
                raise RecipeError(f"method: {spec.name!r} is of your own making: pass the object to train(method=...)")


def _network(recipe: PointRecipe, encoder: Encoder) -> PointClassifier | PointSegmenter:
    return build_segmenter(recipe, encoder) if recipe.predicts == "parts" else build_classifier(recipe, encoder)


def _supervised(recipe: PointRecipe, spec: SupervisedSpec) -> Supervised:
    network = _network(recipe, build_encoder(recipe.network))
    return Supervised(network, build_task(recipe, spec.label_smoothing))


def _self_supervised(recipe: PointRecipe, spec: SelfSupervisedSpec, samples: Mapping[str, int]) -> SelfSupervised:
    encoder = build_encoder(recipe.network)
    network = _network(recipe, encoder)
    pretext = build_pretext(spec.pretext, encoder, width=recipe.network.width, dropout=recipe.network.dropout)
    task = build_task(recipe, spec.label_smoothing)
    method = SelfSupervised(
        network,
        task,
        pretext,
        weight=spec.weight,
        class_weight=spec.class_weight,
        mixup=spec.mixup,
        pretext_on=spec.pretext_on,
        gate=None if spec.gate is None else build_gate(spec.gate),
        gating=GatingOptions(**spec.gating.model_dump()),
        memory=build_memory(spec, samples),
        refresh_every=spec.refresh_every,
    )
    method.weighting = build_weighting(spec.weighting, (task.name, pretext.name))
    return method


def _self_distillation(recipe: PointRecipe, spec: SelfDistillationSpec, samples: Mapping[str, int]) -> SelfDistillation:
    return SelfDistillation(
        build_classifier(recipe, build_encoder(recipe.network)),
        Classification(recipe.classes, label_smoothing=spec.label_smoothing),
        weak=WeakView(**spec.weak.model_dump()),
        strong=_strong_views(spec.strong),
        weight=spec.weight,
        student_temperature=spec.student_temperature,
        teacher_temperature=spec.teacher_temperature,
        momentum=spec.momentum,
        reduction=spec.reduction,
        gate=None if spec.gate is None else build_gate(spec.gate),
        gating=GatingOptions(**spec.gating.model_dump()),
        memory=build_memory(spec, samples),
        refresh_every=spec.refresh_every,
    )


def _strong_views(spec: StrongViewSpec) -> dict[str, View]:
    """The student's view of each domain."""
    shared = spec.model_dump(exclude={"rotate", "occlusion"})
    return {
        domain: StrongView(
            occlusion=spec.occlusion if domain == "source" else 0.0, rotate=domain in spec.rotate, **shared
        )
        for domain in ("source", "target")
    }


def _dann(recipe: PointRecipe, spec: DANNSpec) -> DANN:
    encoder = build_encoder(recipe.network)
    network = build_classifier(recipe, encoder)
    hidden = tuple(scaled(channels, recipe.network.width) for channels in spec.hidden)
    return DANN(
        network,
        Classification(recipe.classes, label_smoothing=spec.label_smoothing),
        PointDiscriminator(encoder.pooled_channels, hidden=hidden),
        weight=spec.weight,
        joint_batches=spec.joint_batches,
    )


def _pointdan(recipe: PointRecipe, spec: PointDANSpec) -> PointDAN:
    channels = scaled(NODE_CHANNELS, recipe.network.width)
    encoder = build_encoder(recipe.network)
    network = build_classifier(recipe, encoder, more_channels=channels)
    nodes = _nodes(recipe, spec, encoder)
    return PointDAN(
        network,
        build_head(recipe.network, encoder, len(recipe.classes), more_channels=channels),
        nodes,
        NodeAttention(spec.nodes, channels),
        Classification(recipe.classes, label_smoothing=spec.label_smoothing),
        mmd_weight=spec.mmd_weight,
        discrepancy_weight=spec.discrepancy_weight,
    )


def _dfan(recipe: PointRecipe, spec: DFANSpec) -> DFAN:
    of_nodes = scaled(NODE_CHANNELS, recipe.network.width)
    encoder = build_encoder(recipe.network)
    channels = {"points": encoder.local_channels, "nodes": of_nodes, "cloud": of_nodes}
    hidden = tuple(scaled(each, recipe.network.width) for each in spec.hidden)
    return DFAN(
        build_classifier(recipe, encoder, more_channels=of_nodes),
        _nodes(recipe, spec, encoder),
        Classification(recipe.classes, label_smoothing=spec.label_smoothing),
        {level: PointDiscriminator(channels[level], hidden=hidden) for level in spec.levels},
        global_weight=spec.global_weight,
        local_weight=spec.local_weight,
    )


def _nodes(recipe: PointRecipe, spec: PointDANSpec | DFANSpec, encoder: Encoder) -> SelfAdaptiveNodes:
    return SelfAdaptiveNodes(
        encoder.local_channels,
        scaled(NODE_CHANNELS, recipe.network.width),
        nodes=spec.nodes,
        radius=spec.radius,
        neighbours=spec.neighbours,
        slope=encoder.slope,
    )
