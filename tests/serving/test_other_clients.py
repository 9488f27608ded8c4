"""Programs of others against the server; each is left out where its package is not installed."""

import pytest

QUESTION = "the quick brown fox"
SAME = {"temperature": 1, "max_tokens": 20, "seed": 3}


def test_langchain_chats_streams_and_calls(server, alone):
    langchain = pytest.importorskip("langchain_openai", reason="pip install langchain-openai")
    options = {"base_url": f"{server.address}/v1", "api_key": "none", "model": "tiny"}
    expected = alone.chat([{"role": "user", "content": QUESTION}], **SAME).text
    model = langchain.ChatOpenAI(**options, **SAME)
    assert model.invoke(QUESTION).content == expected
    assert "".join(piece.content for piece in model.stream(QUESTION)) == expected
    weather = {
        "name": "weather", "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Bern", "Rome"]}},
                       "required": ["city"], "additionalProperties": False},
    }  # fmt: skip
    caller = langchain.ChatOpenAI(**options, max_tokens=100, seed=1)
    bound = caller.bind_tools([weather], tool_choice="required", parallel_tool_calls=False)
    (call,) = bound.invoke("the weather").tool_calls
    assert call["name"] == "weather"
    assert call["args"]["city"] in ("Bern", "Rome")


def test_llama_index_chats_and_completes(server, alone):
    like = pytest.importorskip(
        "llama_index.llms.openai_like", reason="pip install llama-index-llms-openai-like"
    )
    core = pytest.importorskip("llama_index.core.llms")
    options = {"api_base": f"{server.address}/v1", "api_key": "none", "context_window": 512}
    options |= {"model": "tiny", "max_tokens": 20, "temperature": 0.0}
    asked = [core.ChatMessage(role="user", content=QUESTION)]
    greedy = {"temperature": 0, "max_tokens": 20}
    expected = alone.chat([{"role": "user", "content": QUESTION}], **greedy).text
    chats = like.OpenAILike(is_chat_model=True, **options)
    assert chats.chat(asked).message.content == expected
    assert "".join(piece.delta or "" for piece in chats.stream_chat(asked)) == expected
    completes = like.OpenAILike(is_chat_model=False, **options)
    assert completes.complete(QUESTION).text == alone.generate(QUESTION, **greedy).text


CASES = [("the quick brown", " fox"), ("the lazy", " dog sleeps"), ("a fox", " and")]


def test_lm_eval_scores_and_generates_as_in_process(server, alone, tmp_path):
    pytest.importorskip("lm_eval", reason="pip install lm-eval")
    instances = pytest.importorskip("lm_eval.api.instance")
    models = pytest.importorskip("lm_eval.models.openai_completions")
    alone.tokenizer.save(tmp_path)
    remote = models.LocalCompletionsAPI(
        model="tiny",
        base_url=f"{server.address}/v1/completions",
        tokenizer_backend="huggingface",
        tokenizer=str(tmp_path),
        max_length=500,
        batch_size=2,
    )

    def asked(kind, arguments):
        given = enumerate(arguments)
        return [instances.Instance(request_type=kind, doc={}, arguments=a, idx=i) for i, a in given]

    scores = remote.loglikelihood(asked("loglikelihood", CASES))
    for (context, continuation), (score, greedy) in zip(CASES, scores, strict=True):
        start, whole = alone.encode(context), alone.encode(context + continuation)
        assert whole[: len(start)] == start
        logprobs = alone.logits(whole).log_softmax(-1)
        places = range(len(start), len(whole))
        own = sum(logprobs[place - 1, whole[place]].item() for place in places)
        assert score == pytest.approx(own, abs=1e-3)
        best = all(logprobs[place - 1].argmax().item() == whole[place] for place in places)
        assert greedy == best
    until = {"until": ["!!"], "max_gen_toks": 12, "temperature": 0, "do_sample": False}
    texts = remote.generate_until(asked("generate_until", [(text, until) for text, _ in CASES]))
    for (context, _), text in zip(CASES, texts, strict=True):
        assert text == alone.generate(context, temperature=0, max_tokens=12, stop=["!!"]).text
