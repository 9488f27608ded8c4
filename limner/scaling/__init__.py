"""Scaling laws: sweeps of small runs, laws fitted to them, and plans that follow from a law."""
