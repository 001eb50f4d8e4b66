"""What a run on point clouds is, in words for a reader who has not seen its recipe."""

from __future__ import annotations

from isthmus.training.points.data_specs import domain_name
from isthmus.training.points.method_specs import (
    CustomSpec,
    DANNSpec,
    DFANSpec,
    PointDANSpec,
    SelfDistillationSpec,
    SelfSupervisedSpec,
    SupervisedSpec,
)
from isthmus.training.points.pretext_specs import PretextSpec
from isthmus.training.points.recipe import PointRecipe


def sentence(recipe: PointRecipe, measured: int) -> str:
    """What a run is, in one sentence; it was measured on so many clouds."""
    stages = " then ".join(f"{stage.steps} steps ({stage.name})" for stage in recipe.stages)
    parts = " and ".join(recipe.target.evaluate_on)
    network = {"pointnet": "PointNet", "dgcnn": "DGCNN", "dgcnn-segmentation": "DGCNN for points"}[recipe.network.kind]
    named = "shapes with labelled points" if recipe.predicts == "parts" else "labelled clouds"
    return (
        f"{_method(recipe)}, in the direction {domain_name(recipe.source)} to {domain_name(recipe.target)}, with a "
        f"{network} on {recipe.points} points per cloud, seed {recipe.seed}, for {stages}, and measured on the "
        f"{measured} {named} of the target's {parts} part{'s' if len(recipe.target.evaluate_on) > 1 else ''}."
    )


def _pretext(spec: PretextSpec) -> str:
    match spec.kind:
        case "defrec":
            return f"deformation-reconstruction (DefRec, {spec.region})"
        case "gast":
            return "distortion location and rotation (GAST)"
        case "mlsp":
            return "masked local structure (MLSP)"
        case "implicit":
            return "implicit distances (ImplicitPCDA)"


def _method(recipe: PointRecipe) -> str:
    spec = recipe.method
    task = "Segmentation" if recipe.predicts == "parts" else "Classification"
    match spec:
        case CustomSpec():
            return f"The method “{spec.name}” (of the user's own making)"
        case SupervisedSpec():
            source_only = spec.kind == "source-only"
            return f"{task} of source labels alone" if source_only else "An oracle on target labels"
        case DANNSpec():
            return "Classification of source labels against a discriminator of the domains (DANN)"
        case PointDANSpec():
            return "Two classifiers of source labels, with aligned nodes and a discrepancy on the target (PointDAN)"
        case DFANSpec():
            return (
                "Classification of source labels with local and global features aligned apart, as inferred from the "
                "abstract of DFAN (its text and code could not be had)"
            )
        case SelfSupervisedSpec():
            where = "both domains" if spec.pretext_on == "both" else "the target"
            parts = [f"{task} beside {_pretext(spec.pretext)} on {where}"]
            if spec.mixup:
                parts.append("with point-cloud mixup (PCM)")
            if spec.weighting != "uniform":
                parts.append(f"balanced by {spec.weighting}")
        case SelfDistillationSpec():
            parts = ["Classification beside self-distillation from a moving-average teacher on both domains"]
            if any(stage.pseudo_labels is not None and stage.pseudo_labels.graph for stage in recipe.stages):
                parts.append("with pseudo-labels refined by a graph network")
    if spec.gate is None:
        parts.append("without a gate")
    else:
        share = f"{100 * spec.gate.keep:.0f} %"
        if spec.gate.keep_end is not None:
            share += f" to {100 * spec.gate.keep_end:.0f} %"
        verb = "weighs labelled samples by" if spec.gate.kind == "scaled" else "lets through"
        parts.append(f"behind a {spec.gate.kind} gate that {verb} {share}")
    return " ".join(parts)
