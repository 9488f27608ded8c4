"""Merges learnt by gigatok are those that `tokenizers` learns, or are not used."""

import logging
import random
import subprocess
from pydoc_data.topics import topics

import pytest

from limner.tokenizers import merging
from limner.tokenizers.training import train_tokenizer
from limner.tokenizers.training_settings import TokenizerSettings

SCRIPTS = (
    "abcdefghij",
    "äéßœñç",
    "абвгд",
    "日本語中文漢字",
    "กขคงจ",
    "0123456789",
    "²½Ⅻ٣",
    "🇩🇪👩‍",
    "\u0301!'",
)


def texts():
    """Much text in few bytes: the words of a language that has many scripts."""
    draw = random.Random(0)
    words = ["".join(draw.choices(draw.choice(SCRIPTS), k=draw.randint(1, 5))) for _ in range(3000)]
    spaces = [" ", " ", " ", "  ", "\n", "\n\n    ", "\t", "\u00a0", "'s ", ", "]
    made = [
        "".join(draw.choice(words) + draw.choice(spaces) for _ in range(200)) for _ in range(60)
    ]
    return [*list(topics.values())[:20], *made]


TEXTS = texts()


def trained(specials=(), size=1500):
    settings = TokenizerSettings(size=size, special_tokens=specials)
    return train_tokenizer(lambda: TEXTS, settings).engine.to_str()


@pytest.fixture(scope="module")
def right():
    """What `tokenizers` makes of the texts, which are too short for gigatok to be asked."""
    return trained()


@pytest.fixture
def asked(monkeypatch, caplog):
    """Short texts are for gigatok too; what is said of it."""
    pytest.importorskip("gigatok")
    monkeypatch.setattr(merging, "LEAST", 0)
    monkeypatch.setattr(merging, "BYTES", 1)
    caplog.set_level(logging.INFO, "limner.tokenizers")
    return lambda: [line for line in caplog.messages if line.startswith("gigatok")]


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_tokenizer_is_the_same_to_the_byte(right, asked, capfd, monkeypatch, threads):
    monkeypatch.setenv("RAYON_NUM_THREADS", threads)
    assert trained() == right
    assert asked() == ["gigatok learnt the merges"]
    assert capfd.readouterr() == ("", "")


def test_special_tokens_have_their_numbers(monkeypatch, asked):
    fast = trained(("<|a|>", "<|b|>"))
    monkeypatch.setattr(merging, "LEAST", 1e9)
    assert fast == trained(("<|a|>", "<|b|>"))
    assert len(asked()) == 1


def test_a_special_token_that_words_spell_is_left_to_tokenizers(monkeypatch, asked):
    fast = trained(("the", "and"))
    monkeypatch.setattr(merging, "LEAST", 1e9)
    assert fast == trained(("the", "and"))
    assert asked() == ["gigatok does not learn the merges: a token would be made twice"]


def other_words(learnt):
    return learnt._replace(words={word + "x": count for word, count in learnt.words.items()})


def other_merges(learnt):
    return learnt._replace(merges=[*learnt.merges[:-2], *learnt.merges[:-3:-1]])


@pytest.mark.parametrize("wrong", [other_words, other_merges])
def test_what_differs_in_a_part_of_the_texts_is_not_used(right, asked, monkeypatch, wrong):
    learn = merging._learn
    monkeypatch.setattr(merging, "_learn", lambda *arguments: wrong(learn(*arguments)))
    assert trained() == right
    (line,) = asked()
    assert line.endswith("it has other words or merges for some of the texts")


def test_every_character_is_compared(asked, monkeypatch):
    compared: list[str] = []
    monkeypatch.setattr(merging, "_require_equal", compared.extend)
    trained()
    characters = set("".join(TEXTS))
    assert characters <= set("".join(compared[-len(characters) :]))


def test_with_few_words_the_last_merges_are_left_to_tokenizers(asked, monkeypatch):
    size = 257 + 8000
    fast = trained(size=size)
    monkeypatch.setattr(merging, "LEAST", 1e9)
    assert fast == trained(size=size)
    (line,) = asked()
    assert line.endswith("words are too few")


def test_a_process_that_fails_is_left_alone(right, asked, monkeypatch):
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda words, **options: popen([*words[:-1], "many"], **options)
    )
    assert trained() == right
    assert asked() == ["gigatok does not learn the merges: its process ended with code 1"]


def test_an_error_while_reading_ends_the_process(asked, monkeypatch):
    started = []
    popen = subprocess.Popen

    def noted(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    def broken():
        yield "text"
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", noted)
    with pytest.raises(KeyboardInterrupt):
        merging.fast_model(broken(), 300, [], count=1, text_bytes=1000)
    assert started[0].returncode < 0
