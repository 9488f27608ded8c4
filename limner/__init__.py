"""limner: the whole life of a language model, with one definition of a model.

    import limner

    model = limner.load("smollm2-135m-instruct")
    print(model.chat([{"role": "user", "content": "What is the capital of France?"}]).text)

Names are fetched when first used, so that `import limner` costs nothing and PyTorch is
imported only by what needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limner.checkpoints.catalogue import pull
    from limner.inference.sampling import Sampling
    from limner.language_model import Completion, Distribution, LanguageModel, load
    from limner.tokenizers import Tokenizer

__all__ = [
    "Completion",
    "Distribution",
    "LanguageModel",
    "Sampling",
    "Tokenizer",
    "__version__",
    "load",
    "pull",
]

_HOMES = {
    "Completion": "limner.language_model",
    "Distribution": "limner.language_model",
    "LanguageModel": "limner.language_model",
    "Sampling": "limner.inference.sampling",
    "Tokenizer": "limner.tokenizers",
    "load": "limner.language_model",
    "pull": "limner.checkpoints.catalogue",
}

__version__: str


def __getattr__(name: str) -> Any:
    """Fetch a public name from the room where it lives (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("limner")
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'limner' has no attribute '{name}'", name=name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
