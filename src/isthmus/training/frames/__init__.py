"""Recipes on LiDAR sweeps with camera images."""
