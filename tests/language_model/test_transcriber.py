"""Sound becomes the text that transformers would write."""

import json
import wave
from pathlib import Path

import pytest
import torch
from transformers import WhisperFeatureExtractor

from limner.language_model import load_transcriber
from tests.families import VOCABULARY
from tests.text_folders import SPECIAL, WORDS, tokenizer, write_folder

#: Words of the vocabulary that stand in for Whisper's special tokens.
FIRST = len(SPECIAL) + len(WORDS)
START, ENGLISH, GERMAN, WRITE, TRANSLATE, NO_TIMES = range(FIRST, FIRST + 6)
NAMES = {
    START: "<|startoftranscript|>",
    ENGLISH: "<|en|>",
    GERMAN: "<|de|>",
    WRITE: "<|transcribe|>",
    TRANSLATE: "<|translate|>",
    NO_TIMES: "<|notimestamps|>",
}
FIELDS = {
    "model_type": "whisper",
    "architectures": ["WhisperForConditionalGeneration"],
    "d_model": 36,
    "num_mel_bins": 10,
    "encoder_layers": 2,
    "encoder_attention_heads": 3,
    "encoder_ffn_dim": 50,
    "decoder_layers": 2,
    "decoder_attention_heads": 3,
    "decoder_ffn_dim": 44,
    "max_source_positions": 50,
    "max_target_positions": 30,
    "vocab_size": VOCABULARY,
    "decoder_start_token_id": START,
    "pad_token_id": 0,
    "bos_token_id": 3,
    "eos_token_id": 3,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
SOUND = WhisperFeatureExtractor(feature_size=10, chunk_length=1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A reference model that takes a second of sound at once, and its folder."""
    folder = tmp_path_factory.mktemp("whisper")
    model = write_folder(folder, FIELDS, noise=0.5, eos_token="[SEP]")
    SOUND.save_pretrained(folder)
    listed = json.loads((folder / "tokenizer.json").read_text())
    for number, name in NAMES.items():
        del listed["model"]["vocab"][f"word{number}"]
        listed["model"]["vocab"][name] = number
    (folder / "tokenizer.json").write_text(json.dumps(listed))
    return model, folder


def state(folder: Path, **fields: object) -> Path:
    """Write what generation_config.json says."""
    (folder / "generation_config.json").write_text(json.dumps(fields))
    return folder


LANGUAGES = {"is_multilingual": True, "lang_to_id": {"<|en|>": ENGLISH, "<|de|>": GERMAN}}


def samples(seconds: float, seed: int = 1) -> torch.Tensor:
    """Noise."""
    return torch.randn(int(16_000 * seconds), generator=torch.Generator().manual_seed(seed)) * 0.1


@torch.no_grad()
def expected(model, sound: torch.Tensor, prompt: list[int], first: tuple[int, ...] = ()) -> str:
    """The most probable tokens one after another, `first` ones not at the beginning."""
    heard = SOUND(sound.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    tokens = list(prompt)
    while len(tokens) < 30 and tokens[-1] != 3:
        logits = model(input_features=heard, decoder_input_ids=torch.tensor([tokens])).logits[0, -1]
        if len(tokens) == len(prompt):
            logits[list(first)] = -torch.inf
        tokens.append(int(logits.argmax()))
    text: str = tokenizer().decode(tokens[len(prompt) :], skip_special_tokens=True)
    for number, name in NAMES.items():
        text = text.replace(f"word{number}", name)
    return text


def test_a_piece_is_written_as_the_reference_writes_it(pair):
    model, folder = pair
    transcriber = load_transcriber(state(folder, **LANGUAGES))
    sound = samples(0.8)
    for language, token in (("en", ENGLISH), ("de", GERMAN)):
        want = expected(model, sound, [START, token, WRITE, NO_TIMES])
        assert transcriber.transcribe(sound, language=language) == want
    want = expected(model, sound, [START, GERMAN, TRANSLATE, NO_TIMES])
    assert transcriber.transcribe(sound, language="de", task="translate") == want


def test_tokens_not_wanted_are_not_written(pair):
    model, folder = pair
    prompt = [START, NO_TIMES]
    plain = expected(model, samples(0.8), prompt)
    best = load_transcriber(folder).tokenizer.token_id(plain.split()[0])
    assert best is not None
    english = {"is_multilingual": False, "begin_suppress_tokens": [best]}
    got = load_transcriber(state(folder, **english)).transcribe(samples(0.8))
    assert got == expected(model, samples(0.8), prompt, (best,)) != plain
    english = {"is_multilingual": False, "suppress_tokens": [best]}
    got = load_transcriber(state(folder, **english)).transcribe(samples(0.8))
    assert plain.split()[0] not in got.split()


@torch.no_grad()
def test_the_language_is_found_out(pair):
    model, folder = pair
    transcriber = load_transcriber(state(folder, **LANGUAGES))
    sound = samples(0.9)
    heard = SOUND(sound.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    logits = model(input_features=heard, decoder_input_ids=torch.tensor([[START]])).logits[0, -1]
    spoken = "en" if logits[ENGLISH] > logits[GERMAN] else "de"
    assert transcriber.transcribe(sound) == transcriber.transcribe(sound, language=spoken)


def test_a_long_file_is_written_piece_by_piece(pair, tmp_path):
    _, folder = pair
    transcriber = load_transcriber(state(folder, **LANGUAGES))
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        whole = (samples(2.5) * 32767).clamp(-32768, 32767).short()
        file.writeframes(whole.numpy().tobytes())
    pieces = (whole.float() / 32768).split(16_000)
    texts = [transcriber.transcribe(piece, language="en") for piece in pieces]
    written = transcriber.transcribe(tmp_path / "x.wav", language="en")
    assert written.replace(" ", "") == "".join(texts).replace(" ", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "fr"}, "unknown language 'fr': '.*' knows de, en"),
        ({"task": "sing"}, "unknown task 'sing': known are transcribe, translate"),
    ],
)
def test_what_it_does_not_know_is_named(pair, options, message):
    transcriber = load_transcriber(state(pair[1], **LANGUAGES))
    with pytest.raises(ValueError, match=message):
        transcriber.transcribe(samples(0.5), **options)


def test_a_model_of_english_refuses_other_languages(pair):
    transcriber = load_transcriber(state(pair[1], is_multilingual=False))
    with pytest.raises(ValueError, match="knows English only"):
        transcriber.transcribe(samples(0.5), language="de")
