"""Stability of a training: pure functions of recorded numbers, without Keras and without files."""
