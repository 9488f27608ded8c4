"""Tokenizers: text to token ids and back, and messages to what a chat model was trained on."""

from limner.tokenizers.chat import ChatTemplate
from limner.tokenizers.conversation import Conversation
from limner.tokenizers.decoding import IncrementalDecoder
from limner.tokenizers.display import Piece, Tokenization
from limner.tokenizers.folder import load_tokenizer
from limner.tokenizers.gguf import tokenizer_from_gguf
from limner.tokenizers.tokenizer import Pair, Tokenizer

__all__ = [
    "ChatTemplate",
    "Conversation",
    "IncrementalDecoder",
    "Pair",
    "Piece",
    "Tokenization",
    "Tokenizer",
    "load_tokenizer",
    "tokenizer_from_gguf",
]
