"""Evaluate: what a model knows before and after, and what is left once leaked questions are set aside."""
