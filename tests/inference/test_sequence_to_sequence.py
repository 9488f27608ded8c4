"""Targets equal those that transformers generates, and do not depend on their batch-mates."""

import pytest
import torch
import transformers
from transformers import AutoConfig, GenerationConfig

from limner.checkpoints.checkpoint import open_checkpoint
from limner.inference.beams import BeamSettings, beam_search
from limner.inference.sampling import Sampling
from limner.inference.sequence_to_sequence import write
from tests.families import ENCODER_DECODERS, VOCABULARY

ENDS = tuple(range(5, VOCABULARY, 9))  # many, so that random weights end texts at all lengths
LONGEST = 12


#: Families, and how much of chance makes their weights write various texts.
NOISE = {"t5": 1.0, "bart": 0.2}


@pytest.fixture(params=NOISE, scope="module")
def pair(request, tmp_path_factory):
    """A reference model and our network with its weights."""
    fields = ENCODER_DECODERS[request.param] | {"forced_eos_token_id": None}
    if request.param == "t5":  # a tied head, of random weights, repeats the last token
        fields |= {"tie_word_embeddings": False, "scale_decoder_outputs": False}
    torch.manual_seed(3)
    (architecture,) = fields["architectures"]
    model = getattr(transformers, architecture)(AutoConfig.for_model(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter) * NOISE[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return model, open_checkpoint(folder).network()


def sources(rows: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded source texts and their mask."""
    tokens = torch.randint(8, VOCABULARY, (rows, 9), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(9) < torch.tensor([[9], [6], [8], [4]])[:rows]).long()
    return tokens, mask


def expected(model, **options) -> list[list[int]]:
    """What transformers generates, the padding behind cut off."""
    tokens, mask = sources()
    settings = GenerationConfig(
        max_new_tokens=LONGEST,
        eos_token_id=list(ENDS),
        pad_token_id=0,
        decoder_start_token_id=model.config.decoder_start_token_id,
        **options,
    )
    written = model.generate(tokens, attention_mask=mask, generation_config=settings)
    return [until_end(row[1:]) for row in written.tolist()]


def until_end(tokens: list[int]) -> list[int]:
    """The tokens up to the first that ends a text."""
    places = [place for place, token in enumerate(tokens) if token in ENDS]
    return tokens[: places[0] + 1] if places else tokens


def greedy(network, tokens, mask) -> list[list[int]]:
    """The most probable target, token by token."""
    targets = write(
        network,
        network.read(tokens, mask),
        [network.config.start],
        Sampling(temperature=0),
        end_tokens=ENDS,
        max_tokens=LONGEST,
    )
    return [target.generated for target in targets]


def best_beams(network, tokens, mask, **options) -> list[list[int]]:
    """The best of each source's beams."""
    found = beam_search(
        network,
        network.read(tokens, mask),
        [network.config.start],
        BeamSettings(**options),
        end_tokens=ENDS,
        max_tokens=LONGEST,
    )
    return [beams[0].tokens[1:] for beams in found]


def test_greedy_targets_equal_the_reference(pair):
    model, network = pair
    assert greedy(network, *sources()) == expected(model, do_sample=False)


BEAMS = [
    {"num_beams": 1},
    {"num_beams": 3},
    {"num_beams": 5, "early_stopping": True},
    {"num_beams": 4, "length_penalty": 2.0, "early_stopping": "never"},
    {"num_beams": 3, "length_penalty": -1.5},
    {"num_beams": 2, "length_penalty": 0.0, "early_stopping": "never"},
    {"num_beams": 4, "no_repeat_ngram_size": 2},
]


@pytest.mark.parametrize("options", BEAMS, ids=str)
def test_beams_equal_the_reference(pair, options):
    model, network = pair
    reference = {"early_stopping": False} | options
    if reference["num_beams"] == 1:
        del reference["early_stopping"]
    assert best_beams(network, *sources(), **options) == expected(
        model, do_sample=False, **reference
    )


def test_a_target_does_not_depend_on_its_batch_mates(pair):
    _, network = pair
    tokens, mask = sources()
    together = best_beams(network, tokens, mask), greedy(network, tokens, mask)
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = tokens[row : row + 1, :length], None
        assert best_beams(network, *alone) == [together[0][row]]
        assert greedy(network, *alone) == [together[1][row]]


def test_the_targets_end_at_different_lengths(pair):
    model, network = pair
    if model.config.model_type != "t5":
        pytest.skip("repeats itself to the limit")
    lengths = {len(target) for target in greedy(network, *sources())}
    assert len(lengths) > 1  # or finished rows would not be tried


def test_sampling_repeats_with_its_seed(pair):
    _, network = pair

    def drawn(seed: int) -> list[list[int]]:
        memory = network.read(*sources())
        settings = Sampling(temperature=1.0, seed=seed)
        start = [network.config.start]
        targets = write(network, memory, start, settings, end_tokens=ENDS, max_tokens=LONGEST)
        return [target.generated for target in targets]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_wrong_setting_is_named():
    with pytest.raises(ValueError, match="num_beams must be 1 or more, not 0"):
        BeamSettings(num_beams=0)
