"""Fewer bits a weight: rounding to nearest, GPTQ, AWQ and kept outliers, on a built network."""
