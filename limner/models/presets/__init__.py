"""Published shapes by name, for what can be worked out without weights.

Each is the fields of its config.json, as far as they shape the network.
"""

from __future__ import annotations

from difflib import get_close_matches

from limner.models.families import find_family
from limner.models.network import NetworkConfig
from limner.models.presets.decoders import DECODERS
from limner.models.presets.encoders import ENCODERS
from limner.models.presets.others import OTHERS
from limner.models.presets.pairs import PAIRS

PRESETS = DECODERS | ENCODERS | PAIRS | OTHERS


def preset(name: str) -> NetworkConfig:
    """The config of a published shape; ValueError names the nearest known."""
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ValueError(f"unknown shape '{name}': {hint}known are {', '.join(PRESETS)}")
    fields = PRESETS[name]
    return find_family(fields["model_type"]).read_config(fields)
