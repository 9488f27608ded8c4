"""Whether the network reads and learns as it should: packing, template, tokenizer, first loss."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from limner.data.batches import Batch
from limner.data.manifest import identify
from limner.models.encoder_decoder import EncoderDecoder
from limner.models.network import Network
from limner.nn.state import Documents
from limner.tokenizers import Tokenizer, load_tokenizer
from limner.training.doctor.report import Check
from limner.training.trainer import Trainer

#: Differences of hidden vectors, of their largest number, that rounding may make.
ROUNDING = 1e-4
#: Objectives that guess tokens at first as chance does.
GUESSING = ("next_token", "prefix", "masked", "span_corruption", "denoising")

TALK = [
    {"role": "user", "content": "One and one?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "And one?"},
]
ANSWER = {"role": "assistant", "content": "Three."}


@torch.no_grad()
def check_packing(network: Network, rows: Batch) -> Check:
    """Whether a packed document is read as if it stood alone: others beside it are changed."""
    documents = rows.documents
    mixed = ((documents != documents[:, :1]) & rows.mask).any(1).nonzero().flatten().tolist()
    if not mixed or isinstance(network, EncoderDecoder):
        return Check("packing", "OK", f"each of {len(rows)} rows holds one document")
    row = rows.part(slice(mixed[0], mixed[0] + 1))
    own = row.documents == row.documents[row.mask][-1]  # the last document of the row
    others = torch.where(own, row.tokens, (row.tokens + 1) % network.config.vocabulary)
    device = next(network.parameters()).device
    plain, changed = (
        network(tokens.to(device), state=Documents(row.documents.to(device)))[own.to(device)]
        for tokens in (row.tokens, others)
    )
    difference = float((plain - changed).abs().max() / plain.abs().max())
    said = (
        f"{len(mixed)} of {len(rows)} rows hold several documents; "
        f"other documents change one by {difference:.1g} of its size"
    )
    return Check("packing", "FAIL" if difference > ROUNDING else "OK", said)


def check_template(tokenizer: Tokenizer) -> Check:
    """Whether answers are learnt in the place where they will be asked for, with their end."""
    if tokenizer.chat_template is None:
        return Check("template", "OK", "no chat template: texts are served as they are trained")
    asked = tokenizer.apply_chat(TALK).ids
    taught = tokenizer.apply_chat([*TALK, ANSWER], add_generation_prompt=False)
    same = next((n for n, pair in enumerate(zip(asked, taught.ids)) if pair[0] != pair[1]), None)  # noqa: B905
    if same is not None or len(asked) > len(taught.ids):
        place = len(taught.ids) if same is None else same
        said = f"what is asked differs from what is taught from token {place} on"
        return Check("template", "FAIL", said)
    learnt = [token for token, own in zip(taught.ids, taught.assistant_mask, strict=True) if own]
    if learnt[-1] not in tokenizer.stop_ids:
        said = f"an answer ends with {tokenizer.token(learnt[-1])!r}, which ends no generation"
        return Check("template", "FAIL", said)
    if tokenizer.bos_id is not None and asked[:2] == [tokenizer.bos_id] * 2:
        said = f"it writes {tokenizer.token(tokenizer.bos_id)} twice"
        return Check("template", "FAIL", said)
    said = f"{len(asked)} tokens are the same in training and serving, and answers end"
    return Check("template", "OK", f"{said} with {tokenizer.token(learnt[-1])}")


def check_tokenizer(model: Path | None, tokenizer: Tokenizer, network: Network) -> Check:
    """Whether the network knows all tokens, and those it was made with are those of the data."""
    rows, tokens = network.config.vocabulary, tokenizer.vocabulary_size
    said = f"{tokens:,} tokens, and vectors for {rows:,}"
    if rows < tokens:
        return Check("tokenizer", "FAIL", f"{said}: the model does not know all of them")
    if model is None or not model.is_dir():
        return Check("tokenizer", "OK", said)
    if identify(load_tokenizer(model)) != identify(tokenizer):
        said += f"; '{model}' was trained with another tokenizer than the data"
        return Check("tokenizer", "FAIL", said)
    return Check("tokenizer", "OK", f"{said}; the model's own")


@torch.no_grad()
def check_first_loss(trainer: Trainer, rows: Batch, kind: str) -> Check:
    """Whether a new network begins as one that guesses."""
    part = rows.part(slice(0, trainer.settings.micro_rows or trainer.settings.rows))
    loss = trainer.objective.loss(trainer.network, part.to(trainer.device)).means()["loss"]
    chance = math.log(trainer.network.config.vocabulary)
    said = f"{loss:.3f} before training; guessing would give {chance:.3f}"
    if kind not in GUESSING:
        return Check("first loss", "OK", f"{loss:.3f} before training")
    if not math.isfinite(loss) or loss > chance + 1:
        return Check("first loss", "FAIL", f"{said}: the network is not sound at the start")
    return Check("first loss", "WARN" if abs(loss - chance) > 0.5 else "OK", said)
