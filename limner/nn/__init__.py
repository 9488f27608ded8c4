"""Layers: attention, positions, norms, feed-forward, and the state that does the attending."""
