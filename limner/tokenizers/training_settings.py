"""What a tokenizer that is to be trained should be."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from limner.config import Settings, nearest
from limner.tokenizers.chat import ChatTemplate
from limner.tokenizers.folder import ROLES
from limner.tokenizers.framing import Frame
from limner.tokenizers.pretokenizers import WORD_SPLITS

Kind = Literal["bpe", "wordpiece", "unigram", "character", "word"]

CHATML = "chatml"
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Each turn between two tokens, as many chat models have it."""

_BERT = {role: f"[{role[:-6].upper()}]" for role in ("pad_token", "unk_token", "cls_token")} | {
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_USUAL_ROLES: dict[Kind, dict[str, str]] = {
    "bpe": {"eos_token": "<|endoftext|>"},
    "wordpiece": _BERT,
    "unigram": {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"},
    "character": {"eos_token": "</s>", "unk_token": "<unk>"},
    "word": {"eos_token": "</s>", "unk_token": "<unk>"},
}


class TokenizerSettings(Settings):
    """A tokenizer that is to be trained."""

    kind: Kind = "bpe"
    """bpe is byte-level, as GPT's; wordpiece BERT's; unigram SentencePiece's"""
    size: int = Field(default=8192, ge=2)
    """tokens of the vocabulary at most, special ones included"""
    split: str | None = None
    """how bpe cuts text into words, by the names of llama.cpp: gpt-2, llama-bpe, qwen2, gpt-4o ...;
    not given: gpt-2"""
    lowercase: bool | None = None
    """of wordpiece and word: letters become small ones, and in wordpiece accents go; not given:
    wordpiece does, word does not"""
    roles: dict[str, str] | None = None
    """special tokens by what they are for, such as '{mask_token: <mask>}', beside the usual ones of
    the kind"""
    special_tokens: tuple[str, ...] = ()
    """more special tokens"""
    sentinels: int = Field(default=0, ge=0)
    """tokens <extra_id_0> and on that stand for missing spans (T5)"""
    begin_with: str | None = None
    """a special token that begins the model's input; not given: wordpiece has [CLS]"""
    end_with: str | None = None
    """a special token that ends the model's input; not given: wordpiece has [SEP]"""
    chat_template: str | None = None
    """a jinja2 file, or chatml, which brings <|im_start|> and <|im_end|>"""
    sample_megabytes: int | None = Field(default=None, ge=1)
    """of more text than this an even sample is learnt from, so that memory has a bound; not given:
    100, and 20 for unigram, which takes most"""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        unknown = next((role for role in self.roles or {} if role not in ROLES), None)
        if unknown is not None:
            raise ValueError(f"roles: no role '{unknown}'{nearest(unknown, ROLES)}")
        self._refuse_unused()
        if self.split is not None and self.split not in WORD_SPLITS:
            raise ValueError(f"no split '{self.split}'{nearest(self.split, WORD_SPLITS)}")
        for name in (self.begin_with, self.end_with):
            if name and name not in self.specials:
                raise ValueError(
                    f"'{name}' begins or ends the input and is no special token: "
                    f"add it to roles or special_tokens, which are {', '.join(self.specials)}"
                )
        if self.size <= len(self.specials):
            raise ValueError(
                f"size={self.size} leaves no room beside {len(self.specials)} special tokens"
            )
        return self

    def _refuse_unused(self) -> None:
        """An option that would do nothing is a mistake."""
        if self.split is not None and self.kind != "bpe":
            raise ValueError(f"split={self.split} is for kind=bpe, not {self.kind}")
        if self.lowercase is not None and self.kind not in ("wordpiece", "word"):
            raise ValueError(f"lowercase is for kind=wordpiece and kind=word, not {self.kind}")

    @property
    def sample_bytes(self) -> int:
        """Bytes of text that are learnt from at most."""
        usual = 20 if self.kind == "unigram" else 100
        return (self.sample_megabytes or usual) * 1_000_000

    @property
    def all_roles(self) -> dict[str, str]:
        """Special tokens by their roles, with the usual ones of the kind."""
        usual = _USUAL_ROLES[self.kind]
        chat = {"eos_token": CHATML_TOKENS[1]} if self.chat_template == CHATML else {}
        return usual | chat | (self.roles or {})

    @property
    def specials(self) -> list[str]:
        """All special tokens, in the order of their ids."""
        sentinels = [f"<extra_id_{number}>" for number in range(self.sentinels)]
        chat = CHATML_TOKENS if self.chat_template == CHATML else ()
        every = [*self.all_roles.values(), *chat, *sentinels, *self.special_tokens]
        return list(dict.fromkeys(every))

    @property
    def frame(self) -> Frame:
        """What the model's input begins and ends with."""
        roles = self.all_roles
        bert = self.kind == "wordpiece"
        usual = (roles["cls_token"], roles["sep_token"]) if bert else (None, None)
        given = (self.begin_with, self.end_with)
        before, after = (u if g is None else g or None for g, u in zip(given, usual, strict=True))
        return Frame(before=before, after=after)

    def template(self) -> ChatTemplate | None:
        """The chat template; OSError or ValueError if the file cannot be read or is none."""
        if self.chat_template is None:
            return None
        if self.chat_template == CHATML:
            return ChatTemplate(CHATML_TEMPLATE)
        return ChatTemplate(Path(self.chat_template).read_text(encoding="utf-8"))
