"""Weights: the bundle, and the checkpoints of other libraries."""
