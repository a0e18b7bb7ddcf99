"""Task files of ours, in the format of lm-evaluation-harness, for benchmarks that it does not have."""
