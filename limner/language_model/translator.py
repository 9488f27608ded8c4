"""A text in, another out: translation, summaries, and what else an encoder-decoder was taught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields as fields_of
from functools import partial
from pathlib import Path
from typing import Any

import torch

from limner.checkpoints.catalogue import resolve
from limner.checkpoints.checkpoint import Checkpoint, open_checkpoint, read_json
from limner.config import nearest
from limner.inference.beams import BeamSettings, beam_search
from limner.inference.sampling import Sampling
from limner.inference.sequence_to_sequence import write
from limner.language_model.abilities import require
from limner.language_model.loading import Progress, choose_device, choose_dtype
from limner.models.encoder_decoder import EncoderDecoder
from limner.tokenizers import Tokenizer

#: Tokens of a target where neither the caller nor the checkpoint says how many.
LONGEST = 256

#: The options of searching and those of drawing at random.
SEARCHING = {field.name for field in fields_of(BeamSettings)}
DRAWING = {field.name for field in fields_of(Sampling)}
DRAWING -= {"max_tokens", "stop", "logprobs", "logprobs_of"}


class Translator:
    """An encoder-decoder with its tokenizer.

    Options everywhere are the fields of `BeamSettings`, which search (one beam is
    greedy), or those of `limner.Sampling`, which draw; `max_tokens` goes with both.

    Args:
        name: what it is called.
        network: the encoder-decoder.
        tokenizer: its tokenizer.
        defaults: options where the caller gives none.
    """

    def __init__(
        self,
        name: str,
        network: EncoderDecoder,
        tokenizer: Tokenizer,
        *,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        require("translate", name, network)
        self.name, self.network, self.tokenizer = name, network, tokenizer
        self.defaults = dict(defaults or {})

    def translate(
        self,
        texts: str | Sequence[str],
        *,
        target: str | None = None,
        parse_special: bool = False,
        **options: Any,
    ) -> Any:
        """The target of each text, or of one.

        `target` is a token that the target begins with, for models of many languages ("de_DE").
        What the model was taught to do may have to stand before the text ("translate English to
        German: "). With `parse_special`, special tokens are read out of the texts and written into
        the targets: a T5 fills "the <extra_id_0> sat", a BART "the <mask> sat".

        Raises TypeError for an unknown option, ValueError for one out of range and for a text that
        is too long.
        """
        if isinstance(texts, str):
            (one,) = self.translate([texts], target=target, parse_special=parse_special, **options)
            return one
        if SEARCHING & set(options) and DRAWING & set(options):
            search, draw = min(SEARCHING & set(options)), min(DRAWING & set(options))
            raise ValueError(f"{search} is for searching and {draw} for drawing: give one of them")
        chosen = self.defaults | options
        prompt = [self.network.config.start, *self._forced(target, chosen)]
        memory = self._read(self.tokenizer.encode_batch(texts, parse_special=parse_special))
        tokens = self._write(memory, prompt, chosen)
        return [self._text(ids, parse_special) for ids in tokens]

    def _text(self, tokens: Sequence[int], special: bool) -> str:
        """A target as text; of the special tokens, what begins and ends every target is no part."""
        if not special:
            return self.tokenizer.decode(tokens)
        said = [token for token in tokens[1:] if token not in self.tokenizer.stop_ids]
        return self.tokenizer.decode(said, skip_special_tokens=False)

    @torch.inference_mode()
    def _read(self, tokens: Sequence[list[int]]) -> Any:
        """The state in which targets of these texts are written."""
        context = self.network.config.encoder.context
        for number, ids in enumerate(tokens, 1):
            if not 0 < len(ids) <= context:
                raise ValueError(
                    f"text {number} has {len(ids)} tokens but '{self.name}' takes 1 to {context}"
                )
        longest, padding = max(map(len, tokens)), self.network.config.padding
        device = next(self.network.parameters()).device
        rows = [[*ids, *[padding] * (longest - len(ids))] for ids in tokens]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in tokens]
        return self.network.read(
            torch.tensor(rows, device=device), torch.tensor(mask, device=device)
        )

    def _write(self, memory: Any, prompt: list[int], chosen: Mapping[str, Any]) -> list[list[int]]:
        searching, sampling, most = sort_options(chosen)
        most = min(most, self.network.config.context - len(prompt))
        ends = self.tokenizer.stop_ids
        if sampling is None:
            found = beam_search(
                self.network, memory, prompt, searching, end_tokens=ends, max_tokens=most
            )
            return [beams[0].tokens for beams in found]
        targets = write(self.network, memory, prompt, sampling, end_tokens=ends, max_tokens=most)
        return [target.tokens for target in targets]

    def _forced(self, target: str | None, chosen: dict[str, Any]) -> list[int]:
        """The tokens after the start that are not the model's to choose."""
        stated = chosen.pop("forced_bos_token_id", None)
        if target is None:
            return [] if stated is None else [stated]
        token = self.tokenizer.token_id(target)
        if token is None:
            raise ValueError(f"the tokenizer of '{self.name}' has no token '{target}'")
        return [token]


def sort_options(chosen: Mapping[str, Any]) -> tuple[BeamSettings, Sampling | None, int]:
    """How to search, how to draw (None: search) and how many tokens at most.

    Raises TypeError for an unknown option; the nearest right name is suggested.
    """
    known = sorted(SEARCHING | DRAWING | {"max_tokens"})
    for name in chosen:
        if name not in known:
            raise TypeError(f"unknown option '{name}'{nearest(name, known)}")
    most = chosen.get("max_tokens") or LONGEST
    settings = BeamSettings(**{name: chosen[name] for name in SEARCHING if name in chosen})
    options = {name: chosen[name] for name in DRAWING if name in chosen}
    if not options:
        return settings, None, most
    banned = dict.fromkeys(settings.banned, float("-inf"))
    options["logit_bias"] = banned | dict(options.get("logit_bias", {}))
    return settings, Sampling(**options), most


def load_translator(
    name_or_path: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> Translator:
    """A translator by name or folder; arguments and errors are those of `limner.load`."""
    where = choose_device(device)
    report = progress or (lambda stage, done, total: None)
    checkpoint = open_checkpoint(resolve(str(name_or_path), partial(report, "downloading")))
    network = checkpoint.network(choose_dtype(dtype, where), where, partial(report, "loading"))
    require("translate", str(name_or_path), network)
    assert isinstance(network, EncoderDecoder)
    return Translator(
        str(name_or_path), network, checkpoint.tokenizer(), defaults=stated_options(checkpoint)
    )


def stated_options(checkpoint: Checkpoint) -> dict[str, Any]:
    """What generation_config.json, or else config.json, says of how to write."""
    path = checkpoint.path / "generation_config.json"
    stated = read_json(path) if path.is_file() else dict(checkpoint.fields)
    names = ("num_beams", "length_penalty", "early_stopping", "no_repeat_ngram_size")
    options = {name: stated[name] for name in names if stated.get(name) is not None}
    options.setdefault("num_beams", 1)
    for name in ("max_new_tokens", "max_length"):
        if stated.get(name):
            options["max_tokens"] = stated[name]
    words = stated.get("bad_words_ids") or []
    options["banned"] = tuple(word[0] for word in words if len(word) == 1)
    if stated.get("forced_bos_token_id") is not None:
        options["forced_bos_token_id"] = stated["forced_bos_token_id"]
    return options
