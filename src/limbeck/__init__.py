"""Synthetic data and distillation: a teacher samples candidates, filters score them, a student learns what survives."""

__version__ = "0.1.0"
