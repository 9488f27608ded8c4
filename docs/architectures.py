"""Write docs/architectures.md and its drawing: `.venv/bin/python docs/architectures.py`.

Everything in them is read off the configs of the families, so neither can say what is not so.
"""

from __future__ import annotations

import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from limner.models.block import BlockConfig, ResidualConfig  # noqa: E402
from limner.models.families import FAMILIES, GGUF_FAMILIES, find_family  # noqa: E402
from limner.models.presets import PRESETS  # noqa: E402
from tests.samples import samples  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
DRAWING = ROOT / "docs" / "pictures" / "block.svg"
MIXERS = {
    "Attention": "attention",
    "LatentAttention": "latent attention",
    "Disentangled": "disentangled attention",
    "Performer": "FAVOR+ attention",
    "FixedWindow": "fixed window",
    "Recurrent": "LSTM, GRU or RNN",
    "TimeMix": "time mix",
    "ChannelMix": "channel mix",
}
HEAD = """# Architectures

Every family is a choice of parts. This page is written by `docs/architectures.py` from the
families' configs; a test fails when it is out of date. *Two norms* means one before a sub-layer
and one on its result.

![The block and what each family puts into it](pictures/block.svg)

`limner info NAME` says the same of any model, and of published shapes by name without their
weights:

```console
$ limner info mixtral-8x7b
```

| family | stack | mixer | positions | norm | feed-forward | head | GGUF |
|---|---|---|---|---|---|---|---|
"""


def configs() -> dict[str, Any]:
    """A config of each model type that limner reads: published, or the sample of the tests."""
    found = {}
    tiny = samples()
    published = {fields["model_type"]: fields for fields in reversed(PRESETS.values())}
    for kind in sorted(FAMILIES):
        fields = published.get(kind) or tiny[kind]
        found[kind] = find_family(kind).read_config(fields)
    return found


def stacks(config: Any) -> dict[str, Any]:
    """The stacks of a config: itself, or the parts it is made of."""
    parts = ("encoder", "image", "text", "decoder")
    inner = {part: getattr(config, part) for part in parts if hasattr(config, part)}
    return inner or {"": config}


def stack_kind(config: Any) -> str:
    """Decoder, encoder, or what it is made of."""
    names = {
        "EncoderDecoder": "encoder-decoder",
        "Contrastive": "two encoders",
        "Seeing": "image encoder and decoder",
    }
    name = type(config).__name__.removesuffix("Config")
    return names.get(name, name.lower())


def distinct(words: Iterator[str]) -> str:
    """Each once, in order."""
    return "; ".join(dict.fromkeys(word for word in words if word))


def mixer_words(block: BlockConfig) -> str:
    """The mixer of a block in a few words."""
    mixer: Any = block.mixer
    name = type(mixer).__name__.removesuffix("Config")
    words = [MIXERS.get(name, name)]
    heads, shared = getattr(mixer, "heads", None), getattr(mixer, "key_value_heads", None)
    if name == "Attention" and heads and shared:
        words[0] = {heads: "multi-head", 1: "multi-query"}.get(shared, "grouped-query")
    if getattr(mixer, "window", None):
        words.append("sliding")
    if getattr(mixer, "pattern", None):
        words.append("banded")
    if getattr(mixer, "softcap", None):
        words.append("capped")
    if getattr(mixer, "head_norm", None):
        words.append("normed heads")
    if block.cross:
        words.append("+ cross")
    return " ".join(words)


def position_words(config: Any, block: BlockConfig) -> str:
    """How a token's place is known."""
    mixer: Any = block.mixer
    rotary, embedding = getattr(mixer, "rotary", None), getattr(config, "embedding", None)
    if rotary is not None:
        stretched = f" {type(rotary.scaling).__name__}" if rotary.scaling else ""
        part = "partial " if rotary.width < getattr(mixer, "head_width", rotary.width) else ""
        return f"{part}rotary{stretched}"
    if getattr(mixer, "alibi", False):
        return "ALiBi"
    if getattr(mixer, "relative", False):
        return "distance buckets"
    if "Disentangled" in type(mixer).__name__:
        return "disentangled"
    if getattr(embedding, "sinusoids", None):
        return "sinusoidal"
    if getattr(embedding, "learned_positions", 0) or getattr(embedding, "patch", None):
        return "learned"
    return "none"


def norm_words(block: BlockConfig) -> str:
    """Which norm, and where it stands."""
    step: ResidualConfig = block.mix
    places = {
        (True, False, False): "before",
        (False, False, True): "after",
        (True, True, False): "two norms",
        (False, True, False): "on the result",
    }
    norm = step.before or step.inside or step.after
    if norm is None:
        return "none"
    kind = {"rms": "RMS", "layer": "layer"}[norm.kind]
    place = places.get((bool(step.before), bool(step.inside), bool(step.after)), "several")
    return f"{kind}, {place}" + (", parallel" if block.parallel else "")


def feed_words(block: BlockConfig) -> str:
    """What follows the mixer."""
    feed: Any = block.feedforward
    if feed is None:
        return "none"
    if hasattr(feed, "router"):
        router = feed.router
        shared = " + shared" if feed.shared else ""
        return f"{router.chosen} of {router.experts} experts{shared}"
    names = {("silu", True): "SwiGLU", ("gelu_tanh", True): "GEGLU", ("gelu", True): "GEGLU"}
    activation = getattr(feed, "activation", "")
    plain = {
        "gelu_tanh": "GELU (tanh)",
        "gelu": "GELU",
        "relu": "ReLU",
        "silu": "SiLU",
        "quick_gelu": "GELU (quick)",
    }
    gated = getattr(feed, "gated", False)
    default = plain.get(activation, activation or type(feed).__name__.removesuffix("Config"))
    return names.get((activation, gated), default)


def head_words(config: Any) -> str:
    """Whether the head is the table of token vectors, or what other heads there are."""
    head = getattr(config, "head", None)
    if head is not None and hasattr(head, "tied"):
        return "tied" if head.tied else "its own"
    return ", ".join(getattr(config, "heads", {})) or "none"


def row(kind: str, config: Any) -> str:
    """One line of the table."""
    inner = stacks(config)
    blocks = [(stack, block) for stack in inner.values() for block in stack.blocks]
    gguf = "yes" if FAMILIES[kind] in GGUF_FAMILIES.values() else ""
    cells = [
        kind,
        stack_kind(config),
        distinct(mixer_words(block) for _, block in blocks),
        distinct(position_words(stack, block) for stack, block in blocks),
        distinct(norm_words(block) for _, block in blocks),
        distinct(feed_words(block) for _, block in blocks),
        distinct(head_words(stack) for stack in inner.values()),
        gguf,
    ]
    return f"| {' | '.join(cells)} |\n"


def choices(found: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
    """For each place in the block, what may stand there and which families choose it."""
    places: dict[str, dict[str, list[str]]] = {
        place: defaultdict(list) for place in ("positions", "norm", "mixer", "feed-forward")
    }
    for kind, config in found.items():
        for stack in stacks(config).values():
            for block in stack.blocks:
                words = {
                    "positions": position_words(stack, block),
                    "norm": norm_words(block),
                    "mixer": mixer_words(block),
                    "feed-forward": feed_words(block),
                }
                for place, word in words.items():
                    word = "experts" if "experts" in word else word
                    if kind not in places[place][word]:
                        places[place][word].append(kind)
    return places


def drawing(found: dict[str, Any]) -> str:
    """The block from top to bottom, and beside each part the families that choose it."""
    parts = {
        "positions": "hidden vectors and their positions",
        "norm": "norm: before, on the result, or after the sum",
        "mixer": "mixer: looks at other tokens through the state",
        "feed-forward": "feed-forward: each token by itself",
    }
    lines, top = [], 24
    for place, title in parts.items():
        options = choices(found)[place]
        rows = []
        for option, families in sorted(options.items(), key=lambda item: -len(item[1])):
            text = textwrap.wrap(f"{option}: {', '.join(families)}", 118)
            rows += [(line, number == 0) for number, line in enumerate(text)]
        height = 34 + 15 * len(rows)
        lines.append(
            f'<rect x="12" y="{top}" width="976" height="{height}" rx="8" fill="#f4f6fb" '
            'stroke="#5b6b8c"/>'
        )
        lines.append(f'<text x="26" y="{top + 21}" font-weight="bold">{escape(title)}</text>')
        for number, (line, first) in enumerate(rows):
            indent = 40 if first else 56
            place_y = top + 40 + 15 * number
            lines.append(f'<text x="{indent}" y="{place_y}" font-size="12">{escape(line)}</text>')
        top += height
        lines.append(f'<path d="M500 {top} v22" stroke="#5b6b8c" marker-end="url(#tip)"/>')
        top += 28
    lines.append(
        f'<text x="500" y="{top + 14}" text-anchor="middle">hidden vectors of the next block; '
        "each sub-layer is added to what came in</text>"
    )
    marker = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#5b6b8c"/></marker></defs>'
    )
    body = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 {top + 30}" '
        f'font-family="sans-serif" font-size="14" fill="#1d2433">\n{marker}\n'
        f'<rect width="1000" height="{top + 30}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def page(found: dict[str, Any]) -> str:
    """The whole page."""
    return HEAD + "".join(row(kind, config) for kind, config in found.items())


if __name__ == "__main__":
    everything = configs()
    PAGE.write_text(page(everything), encoding="utf-8")
    DRAWING.write_text(drawing(everything), encoding="utf-8")
