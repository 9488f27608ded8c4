"""Data: sources of text, token shards, packing into rows, mixing, and noise."""
