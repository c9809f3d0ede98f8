"""Benchmarks: interleaved, as ratios with their spread."""
