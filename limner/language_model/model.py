"""Text in, text out.

T time, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, overload

import torch
from torch import Tensor

from limner.config import nearest
from limner.inference.constraints import KINDS, Constraint, Form, Grammars, form_of
from limner.inference.engine import Engine
from limner.inference.sampling import Sampling
from limner.inference.speculation import Speculation
from limner.language_model.calling import Calling, CallReader, as_read, calling
from limner.language_model.completion import Completion
from limner.language_model.distribution import Distribution
from limner.language_model.memory import pages_that_fit
from limner.language_model.searching import search
from limner.language_model.stream import Stream, completion
from limner.models.counting import abbreviate, count_parameters, on_meta
from limner.models.decoder import Decoder, DecoderConfig
from limner.nn.packed import number_format, weight_bytes
from limner.peft import Adapter, Use, applied, read_adapter
from limner.tokenizers import IncrementalDecoder, Tokenizer

Messages = Sequence[Mapping[str, Any]]

#: Answers computed side by side.
ROWS = 16
#: One page in so many is kept, where memory is taken as it is used, for texts that begin alike.
REMEMBERED = 8


class LanguageModel:
    """A decoder with its tokenizer; it answers chats, so it is a ChatModel as well.

    Sampling options everywhere are the fields of `limner.Sampling`. One not given is what the
    checkpoint's generation_config.json says, and otherwise Sampling's own default. Beside them one
    of these holds an answer to a form: `schema` (a JSON Schema, or a pydantic model), `regex`,
    `grammar` (Lark, as llguidance reads it) or `choice` (a list of texts). `adapter` everywhere is
    the name of an attached adapter; without it the model answers as if it had none.

    Not to be shared between threads.

    Args:
        name: what it is called.
        network: the decoder.
        tokenizer: its tokenizer.
        defaults: sampling options where the caller gives none.
        context: the longest prompt and answer, in tokens; the network's own if not given.
        cache_bits: 8 keeps keys and values in a quarter of float32's memory.

    Attributes:
        speculation: how answers are guessed ahead; set it before the first one, or never.
        compiled: whether torch.compile makes the steps that a GPU records; set it likewise.
    """

    def __init__(
        self,
        name: str,
        network: Decoder,
        tokenizer: Tokenizer,
        *,
        defaults: Mapping[str, Any] | None = None,
        context: int | None = None,
        cache_bits: int | None = None,
    ) -> None:
        self.cache_bits = cache_bits
        self.speculation: Speculation | None = None
        self.compiled = False
        self.name, self.network, self.tokenizer = name, network, tokenizer
        self.context = network.config.context if context is None else context
        if not 2 <= self.context <= network.config.context:
            raise ValueError(
                f"context must be from 2 to {network.config.context}, which is what '{name}' was "
                f"made for, not {self.context}"
            )
        self.defaults = dict(defaults or {})
        self._adapters: dict[str, Adapter] = {}

    def __repr__(self) -> str:
        return (
            f"LanguageModel('{self.name}', "
            f"{abbreviate(count_parameters(on_meta(self.config)))} parameters)"
        )

    @property
    def config(self) -> DecoderConfig:
        """The network's config."""
        return self.network.config

    @cached_property
    def engine(self) -> Engine:
        """Computes the answers; made when first needed, since it reserves memory for the cache."""
        pages = pages_that_fit(self.network, self.context, ROWS, self.cache_bits)
        return Engine(
            self.network,
            rows=ROWS,
            capacity=self.context,
            pages=pages,
            # A CPU's memory is taken as pages are first written, so few are kept for later texts.
            prefix_pages=pages if self.network.device.type == "cuda" else pages // REMEMBERED,
            cache_bits=self.cache_bits,
            end_tokens=self.tokenizer.stop_ids,
            speculation=self.speculation,
            compiled=self.compiled,
        )

    # Adapters

    @property
    def adapters(self) -> Mapping[str, Adapter]:
        """What is attached, by name."""
        return MappingProxyType(self._adapters)

    def attach(self, name: str, folder: str | Path) -> Adapter:
        """Read a LoRA adapter that the peft library saved; answers can ask for it by its name.

        Raises FileNotFoundError if there is none, ValueError if the name is taken, or the adapter
        is for another model or of a kind that is not supported.
        """
        if not name or name in self._adapters:
            raise ValueError(
                f"an adapter needs a name of its own, and '{name}' is none: choose one"
            )
        adapter = read_adapter(self.network, folder).pack()
        self._adapters[name] = adapter
        return adapter

    def detach(self, name: str) -> None:
        """Forget an adapter; answers under way with it go on. ValueError if there is none."""
        self.adapter(name)
        del self._adapters[name]

    def adapter(self, name: str | None) -> Adapter | None:
        """The adapter of this name, None for none. ValueError suggests the nearest name."""
        if name is None:
            return None
        if name not in self._adapters:
            raise ValueError(f"no adapter '{name}' is attached{nearest(name, self._adapters)}")
        return self._adapters[name]

    def applied(self, name: str | None) -> AbstractContextManager[None]:
        """Let an adapter change all passes of a block."""
        adapter = self.adapter(name)
        return applied(self.network, [] if adapter is None else [Use(adapter)])

    # Going on from a text

    @overload
    def generate(self, prompt: str, **options: Any) -> Completion: ...

    @overload
    def generate(self, prompt: Sequence[str], **options: Any) -> list[Completion]: ...

    def generate(
        self, prompt: str | Sequence[str], *, adapter: str | None = None, **options: Any
    ) -> Completion | list[Completion]:
        """Continue a text, or several at once, exactly as each would be alone.

        Raises:
            TypeError: an unknown option; the nearest right name is suggested.
            ValueError: an option out of range, a form that cannot be followed, or a prompt that is
                empty or too long.
        """
        prompts = [prompt] if isinstance(prompt, str) else prompt
        tokens = [self.encode(text) for text in prompts]
        form, others = form_of(options)
        sequences = self.engine.generate(
            tokens,
            self.sampling(**others),
            new_decoder=self._new_decoder,
            new_constraint=lambda: self.constraint(form),
            adapter=self.adapter(adapter),
        )
        answers = [completion(sequence, self.tokenizer) for sequence in sequences]
        return answers[0] if isinstance(prompt, str) else answers

    def stream(self, prompt: str, *, adapter: str | None = None, **options: Any) -> Stream:
        """Continue a text, piece by piece. Raises at once, as `generate` does."""
        return self._stream(self.encode(prompt), options, adapter)

    # Answering

    def chat(
        self,
        messages: Messages,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str = "auto",
        template: Mapping[str, Any] | None = None,
        adapter: str | None = None,
        **options: Any,
    ) -> Completion:
        """Answer a conversation.

        Args:
            messages: ``{"role": ..., "content": ...}``, the last usually the user's.
            tools: functions that the model may call, as OpenAI's API describes them; the answer's
                `calls` are those that it wants made.
            tool_choice: "auto"; "required" or the name of one, and the answer is held to be a sound
                call; or "none".
            template: further variables of the chat template.
            adapter: the name of an attached adapter.
            options: sampling options.

        Raises as `generate` does, and ValueError if the model has no chat template or the template
        refuses the messages.
        """
        stream = self.stream_chat(
            messages,
            tools=tools,
            tool_choice=tool_choice,
            template=template,
            adapter=adapter,
            **options,
        )
        with stream:
            for _ in stream:
                pass
        return stream.completion

    #: The ChatModel protocol's name.
    reply = chat

    def stream_chat(
        self,
        messages: Messages,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str = "auto",
        template: Mapping[str, Any] | None = None,
        adapter: str | None = None,
        **options: Any,
    ) -> Stream:
        """Answer a conversation, piece by piece. Takes and raises what `chat` does."""
        given: object = messages
        if isinstance(given, str):
            raise ValueError(
                "messages must be a list such as [{'role': 'user', 'content': ...}], not a string; "
                "to continue a text use generate or stream"
            )
        called = calling(self.tokenizer, tools, tool_choice)
        plain, described = as_read(self.tokenizer, messages, called.tools if called else ())
        conversation = self.tokenizer.apply_chat(plain, tools=described, **dict(template or {}))
        return self._stream(conversation.ids, options, adapter, called)

    def search(
        self, prompt: str | Messages, *, adapter: str | None = None, **options: Any
    ) -> list[Completion]:
        """What follows a text or answers messages, by searching; best first.

        One of these options says how:

        - `num_beams`: beam search, with the options of `limner.inference.search.DiverseSettings`
          (`length_penalty`, `early_stopping`, `no_repeat_ngram_size`, `groups`,
          `diversity_penalty`).
        - `contrast` (0 to 1, 0.6 is usual): contrastive search among the `top_k` best tokens.
        - `best_of`: so many drawn answers, with sampling options, by the mean log-probability of
          their tokens or by `scorer`, a function of their text.

        `max_tokens` goes with all.

        Raises TypeError for an unknown option, ValueError for one out of range or a recurrent
        model, and as `generate` does.
        """
        if isinstance(prompt, str):
            return search(self, self.encode(prompt), options, adapter)
        return search(self, self.tokenizer.apply_chat(prompt).ids, options, adapter)

    # Looking inside

    @torch.inference_mode()
    def logits(self, prompt: str | Sequence[int], adapter: str | None = None) -> Tensor:
        """Logits (T, V) after each token of a text, or of token ids (T,).

        Raises ValueError if it is empty or longer than the context.
        """
        tokens = self.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if not 0 < len(tokens) <= self.context:
            raise ValueError(
                f"the text has {len(tokens)} tokens, but must have from 1 to {self.context}"
            )
        device = self.network.device
        with self.applied(adapter):
            return self.network.logits(torch.tensor([tokens], device=device))[0]

    def next_token(self, prompt: str | Sequence[int], adapter: str | None = None) -> Distribution:
        """The probabilities of the token after a text, before any sampling option."""
        return Distribution(self.logits(prompt, adapter)[-1], self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, with what the model's input begins with; an empty one is its start.

        Raises ValueError if that leaves nothing to go on from.
        """
        tokens = self.tokenizer.encode(text)
        if tokens:
            return tokens
        if self.tokenizer.bos_id is None:
            raise ValueError("the prompt is empty: give the model a text to go on from")
        return [self.tokenizer.bos_id]

    def sampling(self, **options: Any) -> Sampling:
        """These options over the model's defaults.

        Raises TypeError for an unknown one, ValueError for one out of range.
        """
        names = [field.name for field in dataclasses.fields(Sampling)]
        for name in options:
            if name not in names:
                raise TypeError(f"unknown option '{name}'{nearest(name, [*names, *KINDS])}")
        return Sampling(**{**self.defaults, **options})

    def constraint(self, form: Form | None) -> Constraint | None:
        """What holds one answer to a form.

        Raises ValueError, in one line, for a form that cannot be followed.
        """
        return None if form is None else self._grammars.constraint(form)

    @cached_property
    def _grammars(self) -> Grammars:
        return Grammars(self.tokenizer, self.config.vocabulary)

    def _stream(
        self,
        tokens: Sequence[int],
        options: Mapping[str, Any],
        adapter: str | None,
        called: Calling | None = None,
    ) -> Stream:
        form, options = form_of(options)
        if called is not None:
            form = called.form(form, self.constraint)
        sequence = self.engine.submit(
            tokens,
            self.sampling(**options),
            decoder=called.decoder() if called else self._new_decoder(),
            constraint=self.constraint(form),
            adapter=self.adapter(adapter),
        )
        reader = CallReader(called) if called else None
        return Stream(self.engine, sequence, self.tokenizer, reader)

    @property
    def _new_decoder(self) -> Callable[[], IncrementalDecoder]:
        return lambda: IncrementalDecoder(self.tokenizer)

    def _repr_html_(self) -> str:
        facts = {
            "architecture": f"{self.config.family}, {len(self.config.blocks)} layers of width "
            f"{self.config.width:,}",
            "parameters": f"{count_parameters(on_meta(self.config)):,}",
            "memory": f"{weight_bytes(self.network) / 1e6:,.0f} MB "
            f"({number_format(self.network)} on {self.network.device})",
            "context": f"{self.context:,} tokens",
            "tokenizer": repr(self.tokenizer),
        }
        rows = "".join(
            f'<tr><th style="text-align:left">{name}</th>'
            f'<td style="text-align:left">{html.escape(fact)}</td></tr>'
            for name, fact in facts.items()
        )
        return f"<table><caption><b>{html.escape(self.name)}</b></caption>{rows}</table>"
