"""The state of whole texts."""

import torch

from limner.models.families import find_family
from limner.nn.state import Documents
from tests.families import t5


@torch.no_grad()
def test_a_state_serves_texts_of_other_lengths():
    torch.manual_seed(0)
    network = find_family("t5").read_config(t5()).build().eval()
    network.initialise(deviation=0.3)
    state = Documents()
    for time in (5, 9, 3):
        tokens = torch.randint(3, 90, (2, time))
        assert torch.equal(network.encoder(tokens, state=state), network.encoder(tokens))


def test_places_begin_again_with_each_text():
    documents = torch.tensor([[0, 0, 0, 1, 1, 2], [3, 3, 3, 3, 3, 3]])
    places = Documents(documents).positions(2, 6, torch.device("cpu"))
    assert places.tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]]
