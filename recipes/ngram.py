"""Bits a byte of n-gram models, on the shards and the split that `limner pretrain` trains on.

    python recipes/ngram.py tokens --orders 3 5 7 --validation 0.1

The first token of a document is not counted, as in `limner pretrain`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

from limner.data.corpus import Corpus
from limner.models.ngram.training import train_on_tokens
from limner.models.ngram.vocabulary import NGramVocabulary
from limner.training.pretraining import PretrainSettings, open_corpora


def main() -> None:
    """Train and score a model of each order."""
    options = parse_options()
    settings = PretrainSettings(
        data=str(options.data), folder=Path(), validation=options.validation
    )
    corpora = open_corpora(settings)
    for order in options.orders:
        vocabulary = NGramVocabulary.of_tokens(corpora.tokenizer.vocabulary_size)
        sentences = (tokens for corpus in corpora.train for tokens in documents(corpus))
        model = train_on_tokens(sentences, vocabulary, order)
        texts = [t for corpus in corpora.validation for t in documents(corpus)]
        # The model's own end of a text stands behind our EOS, and is not counted.
        scored = [model.score([vocabulary.begin, *text])[2:] for text in texts]
        bits = -sum(map(float, (s.sum() for s in scored))) * math.log2(10)
        bits_per_byte = bits / sum(map(len, scored)) / corpora.bytes_per_token
        count = sum(model.counts)
        print(f"order {order}  {count:10,} n-grams  {bits_per_byte:.4f} bits a byte")


def parse_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="a folder that `limner data prepare` made")
    parser.add_argument("--orders", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--validation", type=float, default=0.01)
    return parser.parse_args()


def documents(corpus: Corpus) -> Iterator[list[int]]:
    """The tokens of each document."""
    start = 0
    for end in corpus.document_ends().tolist():
        yield corpus.read(start, end)[0].tolist()
        start = end


if __name__ == "__main__":
    main()
