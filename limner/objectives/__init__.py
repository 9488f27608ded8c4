"""Objectives: what is learnt, one file each. A loss is a sum with a weight, never an average."""
