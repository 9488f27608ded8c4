import math

import pytest
import torch

from limner.evaluation.perplexity import Perplexity, perplexity, windows
from limner.tokenizers import load_tokenizer
from tests.quantization.networks import tiny
from tests.text_folders import tokenizer as words

TEXT = "the cat sat on the big house in Paris and a dog ran under the red tree of the old king"


@pytest.fixture
def tokenizer(tmp_path):
    words(framed=False).save_pretrained(tmp_path)
    return load_tokenizer(tmp_path)


def by_hand(network, tokens, window, stride):
    """Each token's surprise, from the last tokens that the windows let it see."""
    total = 0.0
    for place in range(1, len(tokens)):
        first = 0
        while first + window < place:
            first += stride
        logits = network.logits(torch.tensor([tokens[first:place]]))[0, -1].double()
        total -= logits.log_softmax(-1)[tokens[place]].item()
    return total


@pytest.mark.parametrize(("window", "stride"), [(64, 64), (8, 8), (8, 3), (5, 1), (1, 1)])
def test_every_token_is_predicted_once_from_what_its_window_shows(tokenizer, window, stride):
    network = tiny()
    tokens = tokenizer.encode(TEXT, add_special_tokens=False)
    result = perplexity(network, tokenizer, TEXT, window=window, stride=stride)
    assert result.tokens == len(tokens) - 1
    assert result.nats == pytest.approx(by_hand(network, tokens, window, stride), rel=1e-5)


def test_no_token_is_left_out_or_counted_twice():
    for tokens in range(2, 40):
        for length in (1, 4, 7):
            for stride in range(1, length + 1):
                predicted = [
                    place
                    for window in windows(tokens, length, stride)
                    for place in range(window.first, window.end + 1)
                ]
                assert predicted == list(range(1, tokens))


def test_a_uniform_model_is_as_surprised_as_its_vocabulary_is_large(tokenizer):
    network = tiny()
    with torch.no_grad():
        network.head.output.weight.zero_()
    result = perplexity(network, tokenizer, TEXT)
    assert result.perplexity == pytest.approx(network.config.vocabulary, rel=1e-4)


def test_bits_and_limits():
    result = Perplexity(nats=20 * math.log(2), tokens=5, bytes=40)
    assert result.bits_per_byte == pytest.approx(0.5)
    assert result.perplexity == pytest.approx(16)


def test_a_limit_cuts_the_text(tokenizer):
    assert perplexity(tiny(), tokenizer, TEXT, limit=6).tokens == 5


def test_mistakes_are_said(tokenizer):
    network = tiny()
    with pytest.raises(ValueError, match="1 tokens leave nothing to predict"):
        perplexity(network, tokenizer, "cat")
    with pytest.raises(ValueError, match="window must be from 1 to 128, not 200"):
        perplexity(network, tokenizer, TEXT, window=200)
    with pytest.raises(ValueError, match="stride must be from 1 to the window of 8, not 9"):
        perplexity(network, tokenizer, TEXT, window=8, stride=9)
