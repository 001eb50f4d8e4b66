"""Evaluation of point segmentation from LiDAR and camera."""
