"""From a recipe to its networks, freshly initialised: to be called with torch's generator seeded."""

from __future__ import annotations

from isthmus.models.classifier import PointClassifier
from isthmus.models.dgcnn import DGCNN
from isthmus.models.dgcnn_segmentation import PointSegmentationHead, PointSegmenter, SegmentationDGCNN
from isthmus.models.heads import ClassificationHead
from isthmus.models.pointnet import PointNet
from isthmus.training.points.recipe import DGCNNSpec, NetworkSpec, PointRecipe, SegmentationDGCNNSpec

Encoder = PointNet | DGCNN | SegmentationDGCNN


def build_encoder(spec: NetworkSpec) -> Encoder:
    """The encoder."""
    if isinstance(spec, SegmentationDGCNNSpec):
        return SegmentationDGCNN(
            k=spec.k, width=spec.width, input_transform=spec.input_transform, edge_norm=spec.edge_norm
        )
    if isinstance(spec, DGCNNSpec):
        return DGCNN(k=spec.k, width=spec.width, input_transform=spec.input_transform, edge_form=spec.edge_form)
    return PointNet(width=spec.width, input_transform=spec.input_transform, feature_transform=spec.feature_transform)


def build_head(spec: NetworkSpec, encoder: Encoder, classes: int, *, more_channels: int = 0) -> ClassificationHead:
    """A classifier of pooled features, and of ``more_channels`` beside them."""
    channels = encoder.pooled_channels + more_channels
    return ClassificationHead(channels, classes, width=spec.width, dropout=spec.dropout, slope=encoder.slope)


def build_classifier(recipe: PointRecipe, encoder: Encoder, *, more_channels: int = 0) -> PointClassifier:
    """A classifier of clouds."""
    return PointClassifier(
        encoder, build_head(recipe.network, encoder, len(recipe.classes), more_channels=more_channels)
    )


def build_segmenter(recipe: PointRecipe, encoder: Encoder) -> PointSegmenter:
    """A classifier of points."""
    head = PointSegmentationHead(
        encoder.local_channels,
        encoder.pooled_channels,
        len(recipe.classes),
        width=recipe.network.width,
        dropout=recipe.network.dropout,
    )
    return PointSegmenter(encoder, head)
