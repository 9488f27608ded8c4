"""Sound in, text out.

N samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limner.checkpoints.catalogue import resolve
from limner.checkpoints.checkpoint import open_checkpoint, read_json
from limner.data.sound import SpectrogramConfig, log_mel, read_wav, resample
from limner.inference.sampling import Sampling
from limner.inference.sequence_to_sequence import write
from limner.language_model.abilities import require
from limner.language_model.loading import Progress, choose_device, choose_dtype
from limner.models.encoder_decoder import EncoderDecoder
from limner.nn.memory import Remembering
from limner.tokenizers import Tokenizer

#: Tokens by which Whisper is told what to write, beside those of languages ("<|en|>").
NO_TIMES, TASKS = "<|notimestamps|>", {"transcribe": "<|transcribe|>", "translate": "<|translate|>"}


class Transcriber:
    """A network that hears, with its tokenizer and how sound is made ready for it.

    Args:
        name: what it is called.
        network: an encoder-decoder that reads spectrograms.
        tokenizer: its tokenizer.
        sound: its spectrograms.
        stated: what generation_config.json says.
    """

    def __init__(
        self,
        name: str,
        network: EncoderDecoder,
        tokenizer: Tokenizer,
        sound: SpectrogramConfig,
        stated: Mapping[str, Any] | None = None,
    ) -> None:
        require("transcribe", name, network)
        self.name, self.network, self.tokenizer = name, network, tokenizer
        self.sound, self.stated = sound, dict(stated or {})

    def transcribe(
        self,
        sound: Path | Tensor,
        *,
        language: str | None = None,
        task: str = "transcribe",
        max_tokens: int | None = None,
    ) -> str:
        """What is said in a WAV file, or in samples (N,) at `self.sound.rate` between -1 and 1.

        Long sounds are cut into pieces of what the model takes at once (30 s for Whisper), each
        written down by itself. `language`, such as "en", is found out if not given; `task`
        "translate" writes English instead. Raises ValueError for an unknown language or task.
        """
        samples = self._samples(sound) if isinstance(sound, Path) else sound
        pieces, texts = samples.split(self.sound.samples), []
        prompt: list[int] | None = None
        for piece in pieces:
            memory = self._listen(piece)
            prompt = prompt or self._prompt(memory, language, task)
            texts.append(self._write(memory, prompt, max_tokens))
        return "".join(texts).strip()

    def _samples(self, path: Path) -> Tensor:
        samples, rate = read_wav(path)
        if not len(samples):
            raise ValueError(f"'{path}' holds no sound")
        return resample(samples, rate, self.sound.rate)

    @torch.inference_mode()
    def _listen(self, samples: Tensor) -> Remembering:
        """The state in which the text of these samples is written."""
        weight = self.network.decoder.embedding.tokens.weight
        spectrogram = log_mel(samples.cpu(), self.sound).to(weight.device, weight.dtype)
        return self.network.read(spectrogram[None])

    def _prompt(self, memory: Remembering, language: str | None, task: str) -> list[int]:
        """The tokens that say what is to be written."""
        start = [self.network.config.start]
        if task not in TASKS:
            raise ValueError(f"unknown task '{task}': known are {', '.join(TASKS)}")
        languages = self._languages()
        if len(languages) > 1:
            start += [self._language(memory, languages, language), self._token(TASKS[task])]
        elif language not in (None, "en") or task != "transcribe":
            raise ValueError(f"'{self.name}' knows English only: it writes down what is said in it")
        return [*start, self._token(NO_TIMES)] if self.tokenizer.token_id(NO_TIMES) else start

    def _languages(self) -> dict[str, int]:
        """The tokens of languages, by their codes; none in models of English only."""
        if self.stated.get("is_multilingual") is False:
            return {}
        stated = self.stated.get("lang_to_id") or {}
        return {token.strip("<|>"): number for token, number in stated.items()}

    @torch.inference_mode()
    def _language(
        self, memory: Remembering, languages: Mapping[str, int], language: str | None
    ) -> int:
        if language is not None:
            if language not in languages:
                known = ", ".join(sorted(languages))
                raise ValueError(f"unknown language '{language}': '{self.name}' knows {known}")
            return languages[language]
        start = torch.tensor([[self.network.config.start]], device=memory.memory.device)
        logits = self.network.logits(start, memory)[0, -1]
        return max(languages.values(), key=lambda token: float(logits[token]))

    def _token(self, name: str) -> int:
        token = self.tokenizer.token_id(name)
        if token is None:
            raise ValueError(f"the tokenizer of '{self.name}' has no token '{name}'")
        return token

    def _write(self, memory: Remembering, prompt: list[int], max_tokens: int | None) -> str:
        banned = self.stated.get("suppress_tokens") or []
        room = self.network.config.context - len(prompt)
        (target,) = write(
            self.network,
            memory,
            prompt,
            Sampling(temperature=0, logit_bias=dict.fromkeys(banned, float("-inf"))),
            end_tokens=self.tokenizer.stop_ids,
            max_tokens=min(room, max_tokens or room),
            not_first=self.stated.get("begin_suppress_tokens") or [],
        )
        return self.tokenizer.decode(target.generated)


def load_transcriber(
    name_or_path: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> Transcriber:
    """A transcriber by name or folder; arguments and errors are those of `limner.load`."""
    where = choose_device(device)
    report = progress or (lambda stage, done, total: None)
    checkpoint = open_checkpoint(resolve(str(name_or_path), partial(report, "downloading")))
    network = checkpoint.network(choose_dtype(dtype, where), where, partial(report, "loading"))
    require("transcribe", str(name_or_path), network)
    assert isinstance(network, EncoderDecoder)
    settings = read_json(checkpoint.path / "preprocessor_config.json")
    path = checkpoint.path / "generation_config.json"
    return Transcriber(
        str(name_or_path),
        network,
        checkpoint.tokenizer(),
        SpectrogramConfig.read(settings),
        read_json(path) if path.is_file() else {},
    )
