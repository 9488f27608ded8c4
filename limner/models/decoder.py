"""The decoder stack: language models that predict the next token.

B batch, T time, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor, nn

from limner.models.ahead import Predictor
from limner.models.block import Block, BlockConfig
from limner.models.heads import HeadConfig, LanguageHeadConfig
from limner.models.network import Network
from limner.nn.cache import DenseCache
from limner.nn.embedding import EmbeddingConfig
from limner.nn.norms import NormConfig
from limner.nn.paged import PAGE_SIZE, PagedCache
from limner.nn.paged_int8 import Int8PagedCache
from limner.nn.relative import RelativeBiasConfig
from limner.nn.rotary import DynamicNTK, LongRope, Positions, Scaling
from limner.nn.state import Documents, State


@dataclass(frozen=True)
class DecoderConfig:
    """A decoder, part by part.

    `family` names the file in `families/` that reads and writes it; nothing else looks at it.
    `context` is the longest text it was made for. `relative` is a bias by distance for all layers.
    `predictors` look one token further each (multi-token prediction). `heads` stand beside that of
    language: "sequence", "tokens", "span", "reward", "value".
    """

    family: str
    width: int
    context: int
    embedding: EmbeddingConfig
    blocks: tuple[BlockConfig, ...]
    head: LanguageHeadConfig
    norm: NormConfig | None = None
    relative: RelativeBiasConfig | None = None
    predictors: tuple[BlockConfig, ...] = ()
    heads: Mapping[str, HeadConfig] = field(default_factory=dict)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self.embedding.vocabulary

    @property
    def rereads_at(self) -> int | None:
        """The length at which a kept text must be read anew, if there is one.

        LongRoPE turns a whole text otherwise once it is longer than that, so what a cache holds of
        its beginning is then of no use.
        """
        return min(
            (s.context for s in self._scalings() if isinstance(s, LongRope) and s.by_length),
            default=None,
        )

    @property
    def reusable_prefixes(self) -> bool:
        """Whether the beginning of a text is kept the same however the text goes on.

        Up to `rereads_at`, and beyond. Where positions stretch with the text it is not.
        """
        return not any(isinstance(scaling, DynamicNTK) for scaling in self._scalings())

    @property
    def window(self) -> int | None:
        """How many places back any layer looks, its own counted; None if one has no limit."""
        windows = [getattr(block.mixer, "window", None) for block in self.blocks]
        known = [window for window in windows if window is not None]
        return max(known) if known and len(known) == len(windows) else None

    def _scalings(self) -> list[Scaling]:
        rotaries = (getattr(block.mixer, "rotary", None) for block in self.blocks)
        return [r.scaling for r in rotaries if r is not None and r.scaling is not None]

    def build(self) -> Decoder:
        """Make the network, its weights not yet set."""
        return Decoder(self)


class Decoder(Network):
    """Embedding, blocks, norm; a head beside them."""

    config: DecoderConfig

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = config.embedding.build(config.width)
        self.blocks: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            Block(config.width, layer, block) for layer, block in enumerate(config.blocks)
        )
        self.relative = config.relative.build() if config.relative else None
        self.norm = config.norm.build(config.width) if config.norm else None
        self.head = config.head.build(config.width, config.embedding)
        self.heads = nn.ModuleDict(
            {
                name: head.build(config.width, config.embedding)
                for name, head in config.heads.items()
            }
        )
        self.predictors: Sequence[Predictor] = nn.ModuleList(  # type: ignore[assignment]
            Predictor(config.width, depth, block, config.norm or NormConfig())
            for depth, block in enumerate(config.predictors)
        )
        self.tie()

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        state: State | None = None,
        vectors: Tensor | None = None,
    ) -> Tensor:
        """Hidden vectors (B, T, D) of `tokens` (B, T).

        `state` is what they may see of other tokens, each row a text by itself if not given;
        `positions` (B, T) are the state's own if not given. `vectors` (B, T, E) stand for the
        tokens' own if given (images).
        """
        state = (Documents() if state is None else state).begin(tokens.shape[0], tokens.shape[1])
        if positions is None:
            positions = state.positions(tokens.shape[0], tokens.shape[1], tokens.device)
        vectors = self.embedding.vectors(tokens) if vectors is None else vectors
        hidden = self.embedding.place(vectors, positions)
        places = Positions(positions, self.relative, lengths=partial(state.text_lengths, positions))
        for block in self.blocks:
            hidden = block(hidden, places, state)
        state.end()
        return hidden if self.norm is None else self.norm(hidden)

    def ahead(
        self, hidden: Tensor, tokens: Tensor, depth: int = 0, state: State | None = None
    ) -> Tensor:
        """Hidden vectors (B, T, D) that the head makes into logits of one token further.

        Predictor `depth` takes the `hidden` (B, T, D) of the network, or of predictor `depth` - 1,
        and `tokens` (B, T) that follow: those which `hidden` is to predict. `state` is not the
        network's but one of its own.
        """
        state = (Documents() if state is None else state).begin(tokens.shape[0], tokens.shape[1])
        positions = state.positions(tokens.shape[0], tokens.shape[1], tokens.device)
        following = self.embedding(tokens, positions)
        further = self.predictors[depth](hidden, following, Positions(positions), state)
        state.end()
        return further

    def logits(self, tokens: Tensor, state: State | None = None) -> Tensor:
        """Logits (B, T, V) of `tokens` (B, T)."""
        return self.head(self(tokens, state=state))

    def new_cache(self, rows: int = 1, capacity: int | None = None) -> DenseCache:
        """An empty cache for `rows` texts of up to `capacity` tokens (the context if not given)."""
        shapes = [block.cache_shape for block in self.blocks]
        capacity = self.config.context if capacity is None else capacity
        return DenseCache(shapes, rows, capacity, self.dtype, self.device)

    def new_paged_cache(
        self,
        rows: int = 1,
        capacity: int | None = None,
        pages: int | None = None,
        page_size: int = PAGE_SIZE,
        bits: int | None = None,
    ) -> PagedCache:
        """An empty cache for `rows` texts of up to `capacity` tokens that share `pages` pages.

        Every row has pages of its own if `pages` is not given. Keys and values are rounded to 8
        `bits`, or kept as they are computed if that is not given. Raises ValueError for other bits.
        """
        shapes = [block.cache_shape for block in self.blocks]
        capacity = self.config.context if capacity is None else capacity
        if bits not in (None, 8):
            raise ValueError(f"a cache is kept in 8 bits or as it is computed, not in {bits} bits")
        kind = PagedCache if bits is None else Int8PagedCache
        return kind(shapes, rows, capacity, pages, page_size, self.dtype, self.device)

    def do_without(self, names: Collection[str]) -> None:
        """Leave out the predictors, if `names` are all their parameters, as many files do.

        Raises ValueError if they are some of them, or others.
        """
        parameters = dict(self.named_parameters()) | dict(self.named_buffers())
        if set(names) != {name for name in parameters if name.startswith("predictors.")}:
            super().do_without(names)
        self.predictors = nn.ModuleList()  # type: ignore[assignment]
        self.config = replace(self.config, predictors=())

    def tie(self) -> None:
        """Let the head use the token vectors, where the config says so."""
        if self.config.head.tied:
            self.head.output.weight = self.embedding.tokens.weight
