"""From a recipe to its self-supervised task, with freshly initialised heads."""

from __future__ import annotations

from isthmus.models.heads import ClassificationHead, PointReconstructionHead
from isthmus.models.pretext_heads import PointHead, QueryHead
from isthmus.pretexts.base import Pretext
from isthmus.pretexts.combined import Combined
from isthmus.pretexts.defrec import DefRec
from isthmus.pretexts.distortion_location import LOCATIONS, DistortionLocation
from isthmus.pretexts.implicit_distance import ImplicitDistance
from isthmus.pretexts.masked_structure import OUT_CHANNELS, MaskedStructure
from isthmus.pretexts.mixed_rotation import TURNS, MixedRotation
from isthmus.training.points.build_network import Encoder
from isthmus.training.points.pretext_specs import DefRecSpec, GASTSpec, ImplicitSpec, MLSPSpec, PretextSpec


def build_pretext(spec: PretextSpec, encoder: Encoder, *, width: float = 1.0, dropout: float = 0.5) -> Pretext:
    """The task for an encoder; heads are as wide as the network, and those on pooled features drop as much."""
    options = spec.model_dump(exclude={"kind"})
    match spec:
        case DefRecSpec():
            reconstruction = PointReconstructionHead(encoder.local_channels, encoder.pooled_channels, width=width)
            return DefRec(reconstruction, **options)
        case GASTSpec():
            return _gast(spec, encoder, width, dropout)
        case MLSPSpec():
            head = PointHead(
                encoder.local_channels, encoder.pooled_channels, OUT_CHANNELS, width=width, slope=encoder.slope
            )
            return MaskedStructure(head, **options)
        case ImplicitSpec():
            return ImplicitDistance(QueryHead(encoder.pooled_channels, width=width), **options)


def _gast(spec: GASTSpec, encoder: Encoder, width: float, dropout: float) -> Combined:
    def classifier(classes: int) -> ClassificationHead:
        return ClassificationHead(encoder.pooled_channels, classes, width=width, dropout=dropout, slope=encoder.slope)

    parts: list[tuple[Pretext, float]] = []
    if spec.distortion_weight:
        distortion = DistortionLocation(
            classifier(LOCATIONS), min_points=spec.min_points, variance=spec.variance, voxel_order=spec.voxel_order
        )
        parts.append((distortion, spec.distortion_weight))
    if spec.rotation_weight:
        rotation = MixedRotation(classifier(TURNS), classifier(TURNS), share_per=spec.share_per)
        parts.append((rotation, spec.rotation_weight))
    return Combined("gast", parts)
