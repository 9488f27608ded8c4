"""n-gram language models: counted from sorted merges, smoothed, queried by binary search."""

from limner.models.ngram.arpa import read_arpa, write_arpa
from limner.models.ngram.model import NGramModel, Order
from limner.models.ngram.training import train_on_text, train_on_tokens
from limner.models.ngram.vocabulary import NGramVocabulary

__all__ = [
    "NGramModel",
    "NGramVocabulary",
    "Order",
    "read_arpa",
    "train_on_text",
    "train_on_tokens",
    "write_arpa",
]
