"""Language models as a user meets them: text in, text out."""

from limner.language_model.completion import Completion, TokenScore, ToolCall, Usage
from limner.language_model.distribution import Candidate, Distribution
from limner.language_model.embedder import Embedder, load_embedder
from limner.language_model.loading import load
from limner.language_model.mask_filler import MaskFiller, load_mask_filler
from limner.language_model.model import LanguageModel
from limner.language_model.stream import Stream
from limner.language_model.transcriber import Transcriber, load_transcriber
from limner.language_model.translator import Translator, load_translator

__all__ = [
    "Candidate",
    "Completion",
    "Distribution",
    "Embedder",
    "LanguageModel",
    "MaskFiller",
    "Stream",
    "TokenScore",
    "ToolCall",
    "Transcriber",
    "Translator",
    "Usage",
    "load",
    "load_embedder",
    "load_mask_filler",
    "load_transcriber",
    "load_translator",
]
