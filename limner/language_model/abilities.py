"""What a model can do, by what it is made of."""

from __future__ import annotations

from collections.abc import Callable

from limner.models.contrastive import Contrastive
from limner.models.decoder import Decoder
from limner.models.encoder import Encoder
from limner.models.encoder_decoder import EncoderDecoder
from limner.models.network import Network
from limner.models.seeing import Seeing
from limner.nn.fronts import SoundConfig


def hears(network: EncoderDecoder) -> bool:
    """Whether what it reads is sound."""
    return isinstance(network.config.encoder.front, SoundConfig)


#: Commands, and which networks they fit.
FITTING: dict[str, Callable[[Network], bool]] = {
    "generate": lambda network: isinstance(network, Decoder),
    "chat": lambda network: isinstance(network, Decoder),
    "translate": lambda network: isinstance(network, EncoderDecoder) and not hears(network),
    "transcribe": lambda network: isinstance(network, EncoderDecoder) and hears(network),
    "fill-mask": lambda network: isinstance(network, Encoder) and "masked" in network.heads,
    "embed": lambda network: (
        isinstance(network, Decoder)
        or (isinstance(network, EncoderDecoder) and network.encoder.front is None)
        or (isinstance(network, Encoder) and network.front is None)
    ),
}

KINDS: dict[type[Network], str] = {
    Decoder: "a decoder",
    Encoder: "an encoder",
    EncoderDecoder: "an encoder-decoder",
    Contrastive: "a pair of towers for texts and images",
    Seeing: "a decoder that sees",
}


def abilities(network: Network) -> list[str]:
    """The commands that a network fits."""
    return [command for command, fits in FITTING.items() if fits(network)]


def require(command: str, name: str, network: Network) -> None:
    """ValueError that says what the model `name` is and can do, if it does not fit `command`."""
    if FITTING[command](network):
        return
    kind = KINDS.get(type(network), f"a {type(network).__name__}")
    if isinstance(network, Encoder):
        kind += f" with {' and '.join(network.heads) or 'no'} head"
    can = ", ".join(f"`limner {fitting}`" for fitting in abilities(network)) or "no command"
    raise ValueError(f"'{name}' does not fit `limner {command}`: it is {kind}, which fits {can}")
