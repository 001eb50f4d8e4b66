"""What a run on frames is, in words."""

from __future__ import annotations

from isthmus.training.frames.recipe import (
    BaselineSpec,
    CoralSpec,
    DsCMLSpec,
    FeatureAdversarySpec,
    FrameRecipe,
    MinEntropySpec,
    XMUDASpec,
    data_name,
)

ADVERSARIES = {
    "adapt-segnet": "AdaptSegNet: discriminators of each stream's predictions",
    "cycada": "CyCADA's feature level: discriminators of each stream's features",
    "fcns-in-the-wild": "FCNs in the Wild: discriminators of each stream's features, and bounds on shares of classes",
    "clan": "CLAN: discriminators of each stream's predictions, stronger where its two classifiers differ",
}
ALIGNMENTS = {
    "crossed": "the source's 2D with the target's 3D predictions and the other way round",
    "same": "each stream's predictions on both domains",
    "both": "predictions of the same and of the other stream on both domains",
}


def method_words(recipe: FrameRecipe) -> str:
    """What learns from what."""
    method = recipe.method
    match method:
        case BaselineSpec():
            known = "the target's labels: an oracle" if recipe.uses_target_labels else "the source's labels alone"
            found = f"Each stream learns from {known}"
        case MinEntropySpec():
            found = "Entropy minimisation on the target's predictions"
        case CoralSpec():
            found = ("Deep" if method.form == "deep" else "Logarithmic") + " CORAL: second-order statistics made alike"
        case FeatureAdversarySpec():
            found = ADVERSARIES[method.kind]
        case XMUDASpec():
            found = "xMUDA: each stream's mimicry head imitates the other stream"
        case DsCMLSpec():
            found = dscml_words(method)
        case _:
            found = f"The method “{method.name}” (of the user's own making)"
    pseudo = any(stage.pseudo_labels is not None for stage in recipe.stages)
    return found + ("; then pseudo-labels" if pseudo else "")


def dscml_words(method: DsCMLSpec) -> str:
    """DsCML's variant, and CMAL's."""
    if method.patch is None:
        name = "CML: streams imitate each other at single pixels"
    elif method.patch.offsets == "zero":
        name = f"sCML: a point exchanges with a square of {method.patch.size} × {method.patch.size} pixels"
    else:
        name = f"DsCML: a point exchanges with a deformed patch of {method.patch.size} × {method.patch.size} pixels"
    if method.alignment is None:
        return name
    return f"{name}; CMAL: discriminators compare {ALIGNMENTS[method.alignment]}"


def data_words(recipe: FrameRecipe) -> str:
    """Source and target; what is simulated says so."""
    names = [
        ("simulated " if domain.data.kind == "lidar-streets" else "") + data_name(domain.data)
        for domain in (recipe.source, recipe.target)
    ]
    return " → ".join(names)


def network_words(recipe: FrameRecipe) -> str:
    """The networks of the streams."""
    image, points = recipe.image_network, recipe.point_network
    pretrained = ", pretrained" if image.weights is not None else ""
    words = {
        "2D": f"a U-Net on ResNet-{image.layers} of width {image.width:g}{pretrained} for images",
        "3D": f"a sparse U-Net of {points.levels} levels on voxels of {100 * points.voxel_size:g} cm for sweeps",
    }
    return " and ".join(words[name] for name in ("2D", "3D") if name in recipe.streams)
