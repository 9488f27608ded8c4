"""The encoder stack: every token sees the whole text.

B batch, T time, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from limner.models.block import Block, BlockConfig
from limner.models.heads import HeadConfig, LanguageHead, LanguageHeadConfig
from limner.models.network import Network
from limner.nn.disentangled import DistanceVectorsConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.fronts import PatchesConfig, SoundConfig
from limner.nn.norms import NormConfig
from limner.nn.relative import RelativeBiasConfig
from limner.nn.rotary import Positions
from limner.nn.state import Documents, State


@dataclass(frozen=True)
class EncoderConfig:
    """An encoder, part by part.

    `order` says which of the `blocks` stands at each layer, when some stand at several (ALBERT);
    None: each once. `heads` are named for what they answer: "masked", "next_sentence", "replaced",
    "pooled", "sequence", "tokens", "span", "choice". All layers share what `relative` has learnt of
    distances as a bias, or `distances` as vectors. `front` makes vectors of spectrograms or images,
    which then stand in the place of token vectors.
    """

    family: str
    width: int
    context: int
    embedding: EmbeddingConfig
    blocks: tuple[BlockConfig, ...]
    heads: Mapping[str, HeadConfig] = field(default_factory=dict)
    norm: NormConfig | None = None
    relative: RelativeBiasConfig | None = None
    distances: DistanceVectorsConfig | None = None
    front: SoundConfig | PatchesConfig | None = None
    order: tuple[int, ...] | None = None

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self.embedding.vocabulary

    def build(self) -> Encoder:
        """Make the network, its weights not yet set."""
        return Encoder(self)


class Encoder(Network):
    """Embedding, blocks, norm; heads beside them."""

    config: EncoderConfig

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.front = config.front.build(config.width) if config.front else None
        self.embedding = config.embedding.build(config.width)
        self.blocks: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            Block(config.width, layer, block) for layer, block in enumerate(config.blocks)
        )
        self.relative = config.relative.build() if config.relative else None
        self.distances = config.distances.build(config.width) if config.distances else None
        self.norm = config.norm.build(config.width) if config.norm else None
        self.heads = nn.ModuleDict(
            {
                name: head.build(config.width, config.embedding)
                for name, head in config.heads.items()
            }
        )
        self.order = config.order or tuple(range(len(config.blocks)))
        self.tie()

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        state: State | None = None,
        types: Tensor | None = None,
        depth: int | None = None,
    ) -> Tensor:
        """Hidden vectors (B, T, D) of `tokens` (B, T), or of spectrograms or images.

        `state` says which tokens are of one text (`Documents(mask)` hides padding), each row a text
        by itself if not given. `types` (B, T) are the kinds of token, all 0 if not given.
        With `depth` they are read off after so many layers, before the final norm.
        """
        hidden = self.embedding.vectors(tokens) if self.front is None else self.front(tokens)
        batch, time = hidden.shape[:2]
        state = (Documents() if state is None else state).begin(batch, time)
        if positions is None:
            positions = state.positions(batch, time, hidden.device)
        hidden = self.embedding.place(hidden, positions, types)
        vectors = None if self.distances is None else self.distances()
        places = Positions(positions, self.relative, vectors)
        for number in self.order[:depth]:
            hidden = self.blocks[number](hidden, places, state)
        state.end()
        return hidden if self.norm is None or depth is not None else self.norm(hidden)

    def tie(self) -> None:
        """Let heads use the token vectors, where the config says so."""
        for head in self.heads.values():
            if isinstance(head, LanguageHead) and head.config.tied:
                head.output.weight = self.embedding.tokens.weight

    def head(self, name: str) -> nn.Module:
        """The head of this name; ValueError names those it has."""
        if name not in self.heads:
            has = ", ".join(self.heads) or "none"
            raise ValueError(f"this {self.config.family} model has no head '{name}': it has {has}")
        return self.heads[name]


def masked_head(config: EncoderConfig) -> LanguageHeadConfig | None:
    """The settings of the masked head, if there is one."""
    head = config.heads.get("masked")
    return head if isinstance(head, LanguageHeadConfig) else None
