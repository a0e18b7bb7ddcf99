"""Evaluate: what a model knows before and after, scored as others score it, and what is left once leaked questions are set aside."""
