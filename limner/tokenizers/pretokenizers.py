"""How byte-level BPE cuts text into words before merging, by the names that GGUF files use.

A GGUF file does not hold its pre-tokenizer, only a name in ``tokenizer.ggml.pre``. The names and
what they stand for are llama.cpp's (``src/llama-vocab.cpp``). Where that file had to rewrite a
model's own regular expression for its engine, the model's own is used here: Oniguruma, which
`tokenizers` runs on, is what the model was trained with.

The patterns of a name apply one after another: each cuts the pieces that the one before left.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from tokenizers import Regex, pre_tokenizers


@dataclass(frozen=True)
class WordSplit:
    """A pre-tokenizer and the habits that go with its name."""

    patterns: tuple[str, ...]
    byte_level: bool = True
    """Bytes are spelled in GPT-2's alphabet; otherwise the vocabulary holds UTF-8 text."""
    ignore_merges: bool = False
    """A word that is itself a token is not merged up to."""
    add_bos: bool = False
    """What holds if the file does not say whether to begin with BOS."""
    add_sep: bool = False
    """What holds if the file does not say whether to end with the separator."""
    escape_spaces: bool = False
    """A space is written U+2581, as SentencePiece does."""

    def build(self) -> pre_tokenizers.PreTokenizer:
        """The pre-tokenizer that `tokenizers` runs."""
        steps: list[pre_tokenizers.PreTokenizer] = [
            pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns
        ]
        if self.byte_level:
            steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        return pre_tokenizers.Sequence(steps)


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"


def _cl100k(
    digits: str, letters: str = r"\p{L}+", symbols: str = r"[^\s\p{L}\p{N}]+[\r\n]*"
) -> str:
    """The pattern of GPT-4 (cl100k), of which many differ only in how digits are grouped."""
    words = rf"[^\r\n\p{{L}}\p{{N}}]?{letters}"
    return rf"{_CONTRACTIONS}|{words}|{digits}| ?{symbols}{_TAIL}"


_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _o200k(digits: str, ending: str = "", upper: str = _UPPER, lower: str = _LOWER) -> str:
    """The pattern of GPT-4o (o200k): words also break where the letter case says one begins."""
    lead = r"[^\r\n\p{L}\p{N}]?"
    words = rf"{lead}{upper}*{lower}+{ending}|{lead}{upper}+{lower}*{ending}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_TAIL}"


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_O200K = _o200k(r"\p{N}{1,3}", _CONTRACTIONS + "?")
_CL100K = _cl100k(r"\p{N}{1,3}")
_QWEN2 = _cl100k(r"\p{N}")
_LINES = r"[^\n]+|[\n]+"
_DIGITS_FROM_THE_RIGHT = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
_ASCII_SYMBOLS = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_HAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_HAN_AND_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_NO_FULL_STOPS = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"

# The letters that have case, in the version of Unicode of DeepSeek's first tokenizer.
_CASED = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1"
    "\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd"
    "\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d"
    "\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec"
    "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b"
    "\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787"
    "\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_ASIAN_SCRIPTS = (
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf"
    "\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af"
    "\u1100-\u11ff]+"
)
_YOUTU_SCRIPTS = (
    "[\uac00-\ud7a3\u3131-\u318e]+"
    "|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    "|[\u3105-\u312f]+|" + _HAN_AND_KANA
)
_DEEPSEEK_V3 = (
    rf"{_ASCII_SYMBOLS}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*{_TAIL}"
)
_JAIS2_TAIL = "".join(
    rf"|\s{{{n}}}(?!\S)" for n in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2")
)

_DEFAULT = WordSplit((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"))
_GPT2 = WordSplit((GPT2,))
_SINGLE_DIGITS = WordSplit((r"\p{N}", GPT2))
_LLAMA3 = WordSplit((_CL100K,), ignore_merges=True, add_bos=True)
_DEEPSEEK3 = WordSplit((r"\p{N}{1,3}", _HAN_AND_KANA, _DEEPSEEK_V3))
_BLOOM = WordSplit((_NO_FULL_STOPS,))
_GPT4O = WordSplit((_O200K,))
_GEMMA4 = WordSplit((_LINES,), byte_level=False, escape_spaces=True)
_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
_KIMI = r"\p{Han}+|" + _o200k(
    r"\p{N}{1,3}",
    _CONTRACTIONS + "?",
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
).replace("[\\r\\n/]*", "[\\r\\n]*")

_NAMED: dict[str, WordSplit] = {
    "default": _DEFAULT,
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": _LLAMA3,
    "dbrx smaug-bpe glm4 chatglm-bpe": WordSplit((_CL100K,)),
    "minicpm5": WordSplit((r"\p{N}{1,3}", _cl100k(r"\p{N}+")), ignore_merges=True),
    "jais-2": WordSplit(
        (_CL100K.removesuffix(r"|\s+(?!\S)|\s+") + _JAIS2_TAIL + r"|\s{1}",),
    ),
    "deepseek-llm": WordSplit(
        (
            r"[\r\n]",
            rf"\s?[{_CASED}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"\s+$",
            _HAN,
            r"\p{N}+",
        )
    ),
    "deepseek-coder": WordSplit((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN, r"\p{N}")),
    "deepseek-v3 hunyuan-dense joyai-llm": _DEEPSEEK3,
    "spark2_5": WordSplit(
        (
            r"\p{N}{1,3}",
            _HAN_AND_KANA,
            _DEEPSEEK_V3.replace(r"+[\r\n]*|\s*[\r\n]+", r"+|[\r\n]"),
            r"\p{N}",
        )
    ),
    "youtu": WordSplit((_YOUTU_SCRIPTS, _o200k(r"\p{N}", _CONTRACTIONS + "?")), ignore_merges=True),
    "falcon": WordSplit((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]")),
    "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2": _SINGLE_DIGITS,
    "gpt-2 mpt olmo jais trillion granite-docling phi-2 jina-es jina-de gigachat": _GPT2,
    "jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert exaone4": _GPT2,
    "jina-v1-en jina-v2-code roberta-bpe": replace(_GPT2, add_sep=True),
    "stablelm2 qwen2 deepseek-r1-qwen kormo f2llmv2 megrez hunyuan solar-open grok-2": WordSplit(
        (_QWEN2,)
    ),
    "qwen35": WordSplit((_cl100k(r"\p{N}", r"[\p{L}\p{M}]+", r"[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),)),
    "poro-chat bloom gpt3-finnish": _BLOOM,
    "viking": WordSplit((_NO_FULL_STOPS, r"\p{N}")),
    "tekken": WordSplit((_o200k(r"\p{N}"),), ignore_merges=True, add_bos=True),
    "chameleon": WordSplit(
        (
            r"<sentinel:[0-9]+>",
            r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2,
        ),
        add_bos=True,
    ),
    "gpt-4o llama4 kanana2 talkie minimax-m2": _GPT4O,
    "granite-embed-multi-97m": replace(_GPT4O, ignore_merges=True),
    "granite-embed-multi-311m gemma4": _GEMMA4,
    "sarvam-moe": _GEMMA4,
    "tiny_aya cohere2moe": WordSplit((r"\d{1,3}(?=(?:\d{3})*\b)", _O200K)),
    "kimi-k2": WordSplit((_KIMI,)),
    "superbpe": WordSplit((r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    "bailingmoe bailingmoe2 llada-moe": WordSplit((_BAILING,)),
    "seed-coder": WordSplit((_cl100k(r"\p{N}{1}", symbols=r"[^\s\p{L}\p{N}\r\n]+"),)),
    "afmoe": WordSplit((_DIGITS_FROM_THE_RIGHT, _ASIAN_SCRIPTS, _DEEPSEEK_V3)),
    "laguna": WordSplit((_LINES, _QWEN2)),
    "exaone-moe": WordSplit(
        (
            _cl100k(
                r"\p{N}",
                r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+",
                r"[^\s\p{L}\p{N}]+[\r\n/]?",
            ).replace(r"|\s*[\r\n]+", r"|\s*[\r\n]"),
        )
    ),
    "whitespace": WordSplit((r"\S+",), byte_level=False),
}
WORD_SPLITS: dict[str, WordSplit] = {
    name: split for names, split in _NAMED.items() for name in names.split()
}
"""Every name that ``tokenizer.ggml.pre`` may hold."""


def word_split(name: str) -> WordSplit:
    """The pre-tokenizer that a GGUF file names.

    Raises:
        ValueError: if the name is unknown; the message gives the nearest known ones.
    """
    if name in WORD_SPLITS:
        return WORD_SPLITS[name]
    near = difflib.get_close_matches(name, WORD_SPLITS, n=3, cutoff=0.4) or sorted(WORD_SPLITS)
    raise ValueError(
        f"unknown pre-tokenizer {name!r} in tokenizer.ggml.pre; the nearest known are "
        f"{', '.join(near)}. Set the key to the right one, or load the model's tokenizer.json"
    )
