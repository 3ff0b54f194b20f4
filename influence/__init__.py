"""Numerics and the index format: capture, projection, curvature, whitening, store."""
