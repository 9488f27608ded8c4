"""CLIP's objective: as transformers has it, and a small model that learns pictures of shapes."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, processors
from transformers import CLIPModel

from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.config import read_settings
from limner.data.batches import collate
from limner.data.corpus import corpus_of_documents
from limner.data.images import ImageConfig, ImageFiles
from limner.data.preparing import prepare
from limner.data.rows import PaddedRows, in_order
from limner.data.sources import open_source
from limner.objectives.contrastive import ContrastivePairs, ended
from limner.tokenizers import Tokenizer
from limner.training.pretraining import PretrainSettings, assemble
from tests.objectives.batches import network

COLOURS = ("red", "green", "blue", "yellow", "white", "grey")
SHAPES = ("circle", "square", "bar")
END = 2
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_act": "gelu",
}
TEXT = TOWER | {"max_position_embeddings": 8, "vocab_size": 16, "eos_token_id": END}
FIELDS = {
    "model_type": "clip",
    "architectures": ["CLIPModel"],
    "projection_dim": 24,
    "text_config": TEXT,
    "vision_config": TOWER | {"image_size": 16, "patch_size": 8},
}


def draw(path: Path, colour: str, shape: str, random: torch.Generator) -> None:
    """A shape somewhere on black."""
    left, top = torch.randint(0, 6, (2,), generator=random).tolist()
    image = Image.new("RGB", (16, 16))
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse((left, top, left + 9, top + 9), outline=colour)
    else:
        pen.rectangle((left, top, left + 9, top + (9 if shape == "square" else 2)), fill=colour)
    image.save(path)


def captions(folder: Path, times: int) -> Path:
    """JSON lines of drawn shapes and what they are, in an order that mixes them."""
    random = torch.Generator().manual_seed(0)
    folder.mkdir()
    kinds = [(c, s) for c in COLOURS for s in SHAPES] * times
    order = torch.randperm(len(kinds), generator=random).tolist()
    with (folder / "captions.jsonl").open("w") as file:
        for number, (colour, shape) in enumerate(kinds[place] for place in order):
            draw(folder / f"{number}.png", colour, shape, random)
            text = f"a {colour} {shape}"
            file.write(json.dumps({"text": text, "image": f"{number}.png"}) + "\n")
    return folder / "captions.jsonl"


def tokenizer() -> Tokenizer:
    words = ["<pad>", "<unk>", "</s>", "a", *COLOURS, *SHAPES]
    engine = Engine(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    engine.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", END)])
    roles = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    return Tokenizer(engine, roles=roles)


def settings(file: Path, tokens: Path, folder: Path, **changes) -> PretrainSettings:
    values = {"data": str(tokens), "folder": str(folder), "model": FIELDS, "rows": 18}
    values |= {"steps": 300, "length": 6, "validation": 0.2, "measure_peak": False}
    values |= {"optimizer": {"rate": 3e-3}, "deviation": 0.1, "validate_every": 300}
    values |= {"objective": {"kind": "contrastive", "images": str(file)}}
    return read_settings(PretrainSettings, None, (), **(values | changes))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    file = captions(folder / "shapes", 20)
    prepare(open_source(str(file)), tokenizer(), folder / "tokens")
    return file, folder / "tokens"


def test_the_loss_and_its_gradients_are_those_of_transformers(data, tmp_path):
    file, _ = data
    paths = tuple(file.parent / f"{number}.png" for number in range(4))
    images = ImageFiles(paths, ImageConfig(size=(16, 16), crop=(16, 16)))
    texts = [[3, 4, 10, END], [3, 5, END], [3, 6, 11, END], [7, 12, END]]
    batch = collate(list(in_order(PaddedRows(corpus_of_documents(texts), 6))))
    ours = network(FIELDS)
    save_folder(ours, tmp_path)
    theirs = CLIPModel.from_pretrained(tmp_path)
    loss = ContrastivePairs(images).loss(ours, batch)
    reference = theirs(
        input_ids=batch.tokens,
        attention_mask=batch.mask.int(),
        pixel_values=images.read(range(4)),
        return_loss=True,
    ).loss
    torch.testing.assert_close(loss.mean, reference, atol=1e-6, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        half = ContrastivePairs(images).loss(ours, batch)
    torch.testing.assert_close(half.mean, reference, atol=0.01, rtol=0)
    loss.mean.backward()
    reference.backward()
    torch.testing.assert_close(ours.scale.grad, theirs.logit_scale.grad, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        ours.image_projection.weight.grad,
        theirs.visual_projection.weight.grad,
        atol=1e-6,
        rtol=1e-6,
    )


def test_a_text_that_was_cut_off_gets_its_end():
    texts = [[3, 4, 5, 6, 7], [3, 4, END]]
    batch = collate(list(in_order(PaddedRows(corpus_of_documents(texts), 4))))
    assert ended(batch, END).tolist() == [[3, 4, 5, END], [3, 4, END, 0]]


def test_the_temperature_stays_where_the_paper_keeps_it(data):
    file, _ = data
    images = ImageFiles((file.parent / "0.png",) * 2, ImageConfig(size=(16, 16), crop=(16, 16)))
    batch = collate(list(in_order(PaddedRows(corpus_of_documents([[3, END], [4, END]]), 4))))
    model = network(FIELDS)
    torch.nn.init.constant_(model.scale, 9.0)
    ContrastivePairs(images).loss(model, batch)
    assert float(model.scale.detach()) == pytest.approx(math.log(100))


@pytest.mark.slow
def test_a_model_learns_which_picture_a_text_is_about(data, tmp_path):
    file, tokens = data
    trainer, _ = assemble(settings(file, tokens, tmp_path / "run"))
    trainer.fit()
    model = open_checkpoint(tmp_path / "run" / "model").network()
    texts = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    random = torch.Generator().manual_seed(9)
    paths = tuple(tmp_path / f"{text}.png" for text in texts)
    for path, text in zip(paths, texts, strict=True):
        _, colour, shape = text.split()
        draw(path, colour, shape, random)
    images = ImageFiles(paths, ImageConfig(size=(16, 16), crop=(16, 16))).read(range(len(paths)))
    ids = torch.tensor([tokenizer().encode(text) for text in texts])
    with torch.no_grad():
        logits = model(ids, images)
    right = torch.arange(len(texts))
    assert (logits.argmax(0) == right).float().mean() > 0.9  # by guessing it is 1 in 18
    assert (logits.argmax(1) == right).float().mean() > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"kind": "contrastive"}}, "objective.images: missing"),
        ({"micro_rows": 2}, "leave micro_rows out"),
        ({"length": 3}, "a text has 4 tokens and a row 3"),
        ({"objective": {"kind": "masked"}}, "contrastive would"),
    ],
)
def test_what_does_not_fit_is_said(data, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        assemble(settings(data[0], data[1], tmp_path, **changes))


def test_images_and_texts_must_be_the_same_many(data, tmp_path):
    file, tokens = data
    short = file.parent / "short.jsonl"
    short.write_text("".join(file.read_text().splitlines(keepends=True)[:5]))
    with pytest.raises(ValueError, match="names 5 images but the data has 360 texts"):
        assemble(settings(short, tokens, tmp_path))
    short.write_text('{"text": "a red bar"}\n')
    with pytest.raises(ValueError, match="line 1: no image: write"):
        assemble(settings(short, tokens, tmp_path))
    short.write_text('{"text": "a red bar", "image": "none.png"}\n')
    with pytest.raises(FileNotFoundError, match="line 1: there is no image"):
        assemble(settings(short, tokens, tmp_path))
