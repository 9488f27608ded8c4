import json

import limner as package


def test_the_facts_agree_with_the_loaded_model(limner, tiny):
    facts = json.loads(limner("info", tiny, "--json", "--context", 100).out)
    network = package.load(tiny, weights="parameters").network
    count = sum(parameter.numel() for parameter in network.parameters())
    assert sum(facts["parameters"].values()) == count
    weights, cache = facts["memory"]["float32"]
    assert weights == 4 * count
    kept = network.new_cache(rows=1, capacity=100)
    assert cache == sum(tensor.nbytes for tensor in [*kept.keys, *kept.values])
    assert facts["memory"]["bfloat16"] == [weights / 2, cache / 2]


def test_the_page_says_the_same_for_people(limner, tiny):
    out = limner("info", tiny).out
    facts = json.loads(limner("info", tiny, "--json").out)
    assert f"{sum(facts['parameters'].values()):,}" in out
    assert "8,192 tokens" in out
    assert "Attention(heads=4, key_value_heads=2, head_width=12" in out
    assert "byte-level BPE" in out


def test_no_weights_are_read(limner, tiny, monkeypatch):
    def refuse(*_):
        raise AssertionError("a weight was read")

    monkeypatch.setattr("limner.checkpoints.gguf.GGUFFile.read", refuse)
    assert limner("info", tiny).code == 0


def test_an_impossible_context_is_one_line(refused, tiny):
    assert "context is 9000, but the model was made for 8192" in refused(
        "info", tiny, "--context", 9000
    )
    assert "context: expected" in refused("info", tiny, "--context", 0)


def test_a_published_shape_needs_no_model(limner):
    facts = json.loads(limner("info", "gpt3-175b", "--json").out)
    assert sum(facts["parameters"].values()) == 174_604_259_328
    assert [line.split(":")[0] for line in facts["layers"]] == [
        "48 layers, 0, 2, 4 ... 94",
        "48 layers, 1, 3, 5 ... 95",
    ]


def test_idle_experts_are_told_apart(limner):
    assert "of which a token meets 12.88B" in limner("info", "mixtral-8x7b").out
