"""Benchmarks of several turns: a model acts, a database, a shell, simulated tools or a second reading answers."""
