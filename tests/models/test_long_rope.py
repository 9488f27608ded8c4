"""A text longer than LongRoPE's first context turns otherwise from its beginning."""

import torch

from limner.models.decoder import Decoder, DecoderConfig
from limner.models.families import find_family
from tests.decoder_families import DECODERS, phi3_longrope
from tests.families import VOCABULARY, Fields


def config_of(fields: Fields) -> DecoderConfig:
    """The config of a sample."""
    config = find_family(fields["model_type"]).read_config(fields)
    assert isinstance(config, DecoderConfig)
    return config


def test_only_long_rope_has_texts_read_anew():
    assert config_of(phi3_longrope(original=16)).rereads_at == 16
    assert config_of(DECODERS["phi3"]).rereads_at is None
    assert config_of(DECODERS["bloom"]).rereads_at is None


@torch.no_grad()
def test_a_text_read_anew_where_it_gets_long_equals_the_full_pass():
    config = config_of(phi3_longrope(original=16))
    torch.manual_seed(0)
    network = config.build()
    assert isinstance(network, Decoder)
    network.initialise(deviation=0.2)
    tokens = torch.randint(VOCABULARY, (1, 20))
    cache = network.new_cache(rows=1, capacity=32)
    network(tokens[:, :16], state=cache)
    assert config.rereads_at == cache.lengths[0]
    cache.free(0)
    again = torch.cat(
        [network(tokens[:, :17], state=cache), network(tokens[:, 17:], state=cache)], 1
    )
    torch.testing.assert_close(again, network(tokens), atol=1e-5, rtol=1e-5)
