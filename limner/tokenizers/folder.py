"""Tokenizers in files: Hugging Face folders, tokenizer.json, SentencePiece models; and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from limner.files import write_whole
from limner.tokenizers.chat import DEFAULT, ChatTemplate
from limner.tokenizers.framing import Frame

if TYPE_CHECKING:
    from limner.tokenizers.tokenizer import Tokenizer

ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_TEMPLATE, _TEMPLATES = "chat_template.jinja", "additional_chat_templates"
_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_UNSTATED_LENGTH = 10**9
"""transformers writes 10**30 where no length is known."""


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load a tokenizer from a model's folder, a tokenizer.json or a SentencePiece `.model`.

    In a folder, tokenizer.json is preferred, then vocab.json with merges.txt, vocab.txt, and
    SentencePiece's tokenizer.model or spiece.model. A GGUF file's tokenizer comes from
    `tokenizer_from_gguf`.

    Raises:
        FileNotFoundError: if there is no such file, or no tokenizer in the folder.
        ValueError: if a file is damaged or not supported.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"no tokenizer at {path}: neither a file nor a folder")
    return _from_file(path, {})


def _from_file(path: Path, config: Mapping[str, Any]) -> Tokenizer:
    from limner.tokenizers.sentencepiece import read_sentencepiece
    from limner.tokenizers.tokenizer import Tokenizer

    if path.suffix == ".json":
        return Tokenizer(_engine(path), roles=_roles(config))
    if path.suffix == ".model":
        return read_sentencepiece(path, config)
    raise ValueError(f"{path} is no tokenizer: pass a folder, a tokenizer.json or a .model file")


def _engine(path: Path) -> tokenizers.Tokenizer:
    text = path.read_text(encoding="utf-8")
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the package raises Exception itself
        raise ValueError(f"{path} is no tokenizer.json: {error}") from error


def _from_folder(folder: Path) -> Tokenizer:
    config = _json(folder / "special_tokens_map.json") | _json(folder / "tokenizer_config.json")
    tokenizer = _vocabulary(folder, config)
    tokenizer.chat_template = _chat_template(folder, config)
    tokenizer.stop_ids |= _stop_ids(_json(folder / "generation_config.json"))
    length = config.get("model_max_length")
    if isinstance(length, int) and length < _UNSTATED_LENGTH:
        tokenizer.maximum_length = length
    return tokenizer


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not an object")
    return content


def _roles(config: Mapping[str, Any]) -> dict[str, str]:
    """Roles of tokens; each is named by itself or by an object that describes it."""
    named = {role: config[role] for role in ROLES if config.get(role)}
    return {
        role: token["content"] if isinstance(token, dict) else token
        for role, token in named.items()
    }


def _stop_ids(generation: Mapping[str, Any]) -> set[int]:
    ends = generation.get("eos_token_id")
    if ends is None:
        return set()
    return {ends} if isinstance(ends, int) else set(ends)


def _chat_template(folder: Path, config: Mapping[str, Any]) -> ChatTemplate | None:
    sources: dict[str, str] = {}
    stated = config.get("chat_template")
    if isinstance(stated, str):
        sources[DEFAULT] = stated
    elif stated:
        sources = {entry["name"]: entry["template"] for entry in stated}
    for path in sorted(folder.glob(f"{_TEMPLATES}/*.jinja")):
        sources[path.stem] = path.read_text(encoding="utf-8")
    if (folder / _TEMPLATE).exists():
        sources[DEFAULT] = (folder / _TEMPLATE).read_text(encoding="utf-8")
    return ChatTemplate(sources) if sources else None


def _vocabulary(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    from limner.tokenizers.tokenizer import Tokenizer

    if (folder / "tokenizer.json").exists():
        return _from_file(folder / "tokenizer.json", config)
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        return Tokenizer(_byte_level(folder, config), roles=_roles(config))
    if (folder / "vocab.txt").exists():
        return Tokenizer(_wordpiece(folder, config), roles=_bert_roles(config))
    for name in _SENTENCEPIECE:
        if (folder / name).exists():
            return _from_file(folder / name, config)
    raise FileNotFoundError(
        f"no tokenizer in {folder}: it has none of tokenizer.json, vocab.json with merges.txt, "
        f"vocab.txt, {', '.join(_SENTENCEPIECE)}"
    )


def _byte_level(folder: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """GPT-2's files. RoBERTa's are the same, with a token to begin with and one to separate."""
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    engine = tokenizers.Tokenizer(
        models.BPE(_json(folder / "vocab.json"), [(left, right) for left, right in pairs])
    )
    prefix = bool(config.get("add_prefix_space", False))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    engine.decoder = decoders.ByteLevel()
    roles = _roles(config)
    _add_special(engine, config)
    if "cls_token" in roles and "sep_token" in roles:
        frame = Frame(before=roles["cls_token"], after=roles["sep_token"], between_twice=True)
    else:
        frame = Frame(
            before=roles.get("bos_token") if config.get("add_bos_token") else None,
            after=roles.get("eos_token") if config.get("add_eos_token") else None,
        )
    engine.post_processor = frame.build(engine)
    return engine


def _bert_roles(config: Mapping[str, Any]) -> dict[str, str]:
    usual = {role: f"[{role[:-6].upper()}]" for role in ROLES[2:]}
    return usual | _roles(config)


def _wordpiece(folder: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """BERT's file."""
    tokens = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    vocabulary = {token: place for place, token in enumerate(tokens) if token}
    roles = _bert_roles(config)
    engine = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=roles["unk_token"]))
    engine.normalizer = normalizers.BertNormalizer(
        lowercase=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
    )
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    _add_special(engine, {role: token for role, token in roles.items() if token in vocabulary})
    frame = Frame(before=roles["cls_token"], after=roles["sep_token"])
    engine.post_processor = frame.build(engine)
    return engine


def _add_special(engine: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
    """Tokens with roles, with what the configuration says of the white space around them."""
    tokens = []
    for role, name in _roles(config).items():
        described = config[role] if isinstance(config[role], dict) else {}
        strips = {key: bool(described.get(key)) for key in ("lstrip", "rstrip", "single_word")}
        tokens.append(AddedToken(name, normalized=False, **strips))
    engine.add_special_tokens(tokens)


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a tokenizer as `transformers` reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    # Not by the engine's own `save`, whose errors are no OSError.
    spelled = tokenizer.engine.to_str(pretty=True)
    write_whole(folder / "tokenizer.json", [spelled.encode()])
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **tokenizer.roles,
    }
    if tokenizer.maximum_length is not None:
        config["model_max_length"] = tokenizer.maximum_length
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / "tokenizer_config.json", [text.encode()])
    if tokenizer.chat_template is not None:
        _save_templates(tokenizer.chat_template, folder)


def _save_templates(template: ChatTemplate, folder: Path) -> None:
    for name, source in template.sources.items():
        path = folder / (_TEMPLATE if name == DEFAULT else f"{_TEMPLATES}/{name}.jinja")
        path.parent.mkdir(exist_ok=True)
        write_whole(path, [source.encode()])
