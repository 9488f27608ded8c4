"""What a run would learn from: ends, beginnings, masks, repetitions, and texts it must not see.

N rows, T time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy

from limner.data.batches import Batch, batches
from limner.data.corpus import Corpus, Integers
from limner.data.mixing import Stream
from limner.data.noise import Booleans
from limner.data.overlap import shared_runs
from limner.models.decoder import Decoder
from limner.models.encoder import Encoder
from limner.models.network import Network
from limner.objectives.loss import Objective
from limner.objectives.masked import MaskedTokens, Masker
from limner.objectives.replaced import ReplacedTokens
from limner.tokenizers import Tokenizer
from limner.training.doctor.report import Check, Level

#: Documents and rows looked at.
DOCUMENTS, ROWS = 1000, 256
#: So often may a text be repeated at little loss (Muennighoff et al. 2023).
EPOCHS = 4
#: A text of which so large a share is in the training data counts as seen.
SEEN = 0.5
#: Below this share of places with something to learn, padding wastes the machine.
SPARSE = 0.5


def some_documents(corpora: Sequence[Corpus]) -> list[Integers]:
    """The tokens of documents spread over all corpora."""
    return [document for corpus in corpora for document in _spread(corpus, DOCUMENTS)]


def _spread(corpus: Corpus, most: int) -> Iterator[Integers]:
    ends = corpus.document_ends()
    starts = numpy.concatenate([numpy.zeros(1, numpy.int64), ends[:-1]])
    # The last document may be cut off, where the validation share begins.
    whole = max(len(ends) - 1, 1)
    for number in numpy.unique(numpy.linspace(0, whole - 1, min(most, whole)).astype(int)):
        yield corpus.read(int(starts[number]), int(ends[number]))[0]


def some_rows(stream: Stream) -> Batch:
    """The rows that the run would begin with."""
    return next(batches(islice(stream, ROWS), ROWS))


# Ends and beginnings


def check_end(
    documents: Sequence[Integers], rows: Batch, network: Network, tokenizer: Tokenizer
) -> Check:
    """Whether documents end with a token that ends answers, and it is learnt."""
    if isinstance(network, Encoder):
        return Check("EOS", "OK", "an encoder writes nothing, so it need not learn to stop")
    stops = sorted(tokenizer.stop_ids)
    names = " or ".join(map(tokenizer.token, stops)) or "a token that ends answers"
    ended = sum(int(document[-1]) in stops for document in documents)
    said = f"{ended} of {len(documents)} documents end with {names}"
    if not ended:
        return Check("EOS", "FAIL", f"{said}: the model would never stop; prepare the data again")
    level: Level = "OK" if ended == len(documents) or len(documents) == 1 else "WARN"
    if not isinstance(network, Decoder):
        return Check("EOS", level, said)
    places = numpy.isin(rows.targets.numpy(), stops) & follows_in_document(rows)
    learnt, there = int((places & (rows.weights.numpy() > 0)).sum()), int(places.sum())
    said += f"; learnt in {learnt} of the {there} places of {len(rows)} rows that it follows on"
    return Check("EOS", "FAIL" if learnt < there else level, said)


def follows_in_document(rows: Batch) -> Booleans:
    """Where the token that follows is of the same document, (N, T), as far as rows show it."""
    documents = rows.documents.numpy()
    same = numpy.zeros(documents.shape, bool)
    same[:, :-1] = (documents[:, 1:] == documents[:, :-1]) & (documents[:, :-1] >= 0)
    return same


def check_beginning(documents: Sequence[Integers], tokenizer: Tokenizer) -> Check:
    """Whether documents begin as what the model will be asked with does, and only once so."""
    begin = tokenizer.encode("a")[0]
    if begin not in tokenizer.special_ids:
        return Check("BOS", "OK", "texts begin with no special token, in training as in serving")
    begun = sum(int(document[0]) == begin for document in documents)
    twice = sum(document[:2].tolist() == [begin, begin] for document in documents)
    said = f"{begun} of {len(documents)} documents begin with {tokenizer.token(begin)}"
    if begun < len(documents):
        return Check("BOS", "FAIL", f"{said}, and every prompt will: prepare the data again")
    return Check("BOS", "FAIL" if twice else "OK", f"{said}, {twice} of them twice")


def check_inside(documents: Sequence[Integers], tokenizer: Tokenizer) -> Check:
    """Whether special tokens stand between the first and the last two of a document."""
    special = numpy.array(sorted(tokenizer.special_ids), numpy.int64)
    inside = sum(bool(numpy.isin(document[2:-2], special).any()) for document in documents)
    said = f"{inside} of {len(documents)} documents have special tokens in the middle"
    return Check("specials", "WARN" if inside else "OK", said)


# Masks


def check_mask(rows: Batch, objective: Objective, network: Network) -> Check:
    """Whether places learn what they should: what follows in a document, or what is hidden."""
    padding = 1 - float(rows.mask.float().mean())
    if isinstance(objective, MaskedTokens | ReplacedTokens):
        return check_hidden(rows, objective.masker, padding)
    if not isinstance(network, Decoder):
        level: Level = "WARN" if padding > SPARSE else "OK"
        return Check(
            "mask", level, f"targets are whole texts; {padding:.1%} of the rows is padding"
        )
    return check_following(rows, padding)


def check_following(rows: Batch, padding: float) -> Check:
    """Whether each place learns the token that follows it, in its own document and nowhere else."""
    tokens, targets = rows.tokens.numpy(), rows.targets.numpy()
    learnt, same = rows.weights.numpy() > 0, follows_in_document(rows)
    wrong = int((learnt[:, :-1] != same[:, :-1]).sum())
    wrong += int((same[:, :-1] & (targets[:, :-1] != tokens[:, 1:])).sum())
    said = f"{learnt.mean():.1%} of the places learn what follows, {padding:.1%} are padding"
    if wrong or not learnt.any():
        return Check("mask", "FAIL", f"{said}; {wrong} learn something else")
    if learnt.mean() < SPARSE:
        return Check("mask", "WARN", f"{said}; packing=packed or a smaller length wastes less")
    return Check("mask", "OK", said)


def check_hidden(rows: Batch, masker: Masker, padding: float) -> Check:
    """Whether tokens are hidden, but no special ones and no padding."""
    chosen = masker(rows).chosen.numpy()
    forbidden = ~rows.mask.numpy() | numpy.isin(rows.tokens.numpy(), masker.special)
    said = (
        f"{chosen.mean():.1%} of the places are to be guessed, {int((chosen & forbidden).sum())} "
        f"of them special tokens or padding; {padding:.1%} of the rows is padding"
    )
    return Check("mask", "FAIL" if (chosen & forbidden).any() or not chosen.any() else "OK", said)


def check_epochs(tokens: int, corpora: Sequence[Corpus]) -> Check:
    """How often the run sees the data."""
    there = sum(map(len, corpora))
    said = f"{tokens:,} tokens of {there:,}: {tokens / there:.2g} epochs"
    if tokens > EPOCHS * there:
        return Check("epochs", "WARN", f"{said}; beyond {EPOCHS}, new data would teach more")
    return Check("epochs", "OK", said)


# Contamination


def check_contamination(
    corpora: Sequence[Corpus], texts: Iterable[str], tokenizer: Tokenizer, length: int
) -> Check:
    """Whether evaluation texts stand in the training data, by runs of `length` tokens."""
    given = list(texts)
    encoded = [numpy.array(tokenizer.encode(t, add_special_tokens=False)) for t in given]
    long = [number for number, tokens in enumerate(encoded) if len(tokens) >= length]
    shares = shared_runs(corpora, [encoded[number] for number in long], length)
    seen = sum(share >= SEEN for share in shares)
    some = sum(share > 0 for share in shares)
    said = f"{some} of {len(long)} texts share {length} tokens in a row with the training data"
    if len(long) < len(given):
        said += f" ({len(given) - len(long)} are too short to tell)"
    if not seen:
        return Check("contamination", "WARN" if some else "OK", said)
    worst = given[long[int(numpy.argmax(shares))]]
    said += f", and {seen} stand there by half or more, such as '{' '.join(worst.split())[:40]}'"
    return Check("contamination", "FAIL", said)
