"""llama.cpp, through its C interface, sequences batched as its own server does."""

from benchmarks.sides.serving import Answers, serve, settings

given = settings()

import ctypes  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import llama_cpp  # noqa: E402
import numpy  # noqa: E402

QUIET = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(QUIET, None)
llama_cpp.llama_backend_init()
model_settings = llama_cpp.llama_model_default_params()
model_settings.n_gpu_layers = 0
model = llama_cpp.llama_model_load_from_file(given["model"].encode(), model_settings)
vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
context_settings = llama_cpp.llama_context_default_params()
size = given["rows"] * given["capacity"]
context_settings.n_ctx = size
context_settings.n_batch = context_settings.n_ubatch = max(512, min(size, 2048))
context_settings.n_seq_max = given["rows"]
context_settings.n_threads = context_settings.n_threads_batch = given["threads"]
context_settings.kv_unified = True
context = llama_cpp.llama_init_from_model(model, context_settings)
batch = llama_cpp.llama_batch_init(context_settings.n_batch, 0, 1)


def logits(place: int) -> Any:
    """The logits at one place of the last batch, without a copy."""
    address = llama_cpp.llama_get_logits_ith(context, place)
    pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
    return numpy.ctypeslib.as_array(pointer, (vocabulary,))


def decode(rows: list[tuple[int, int, int, bool]]) -> None:
    """One pass over (token, position, sequence, whether its logits are wanted)."""
    for i, (token, position, sequence, wanted) in enumerate(rows):
        batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
        batch.seq_id[i][0], batch.logits[i] = sequence, wanted
    batch.n_tokens = len(rows)
    if llama_cpp.llama_decode(context, batch):
        raise RuntimeError("llama_decode failed")


def generate(prompts: Answers, count: int, first: Callable[[], None]) -> Answers:
    """Greedily: the prompts in batches of n_batch, then a token for each sequence at once."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    answers: Answers = [[] for _ in prompts]
    rows, ends = [], []
    for sequence, prompt in enumerate(prompts):
        if len(rows) + len(prompt) > context_settings.n_batch:
            flush(rows, ends, answers)
            rows, ends = [], []
        rows += [(t, i, sequence, i == len(prompt) - 1) for i, t in enumerate(prompt)]
        ends.append((sequence, len(rows) - 1))
    flush(rows, ends, answers)
    first()
    for step in range(count - 1):
        pending = [
            (answer[-1], len(prompts[i]) + step, i, True) for i, answer in enumerate(answers)
        ]
        flush(pending, [(i, i) for i in range(len(prompts))], answers)
    return answers


def flush(rows: list[Any], ends: list[tuple[int, int]], answers: Answers) -> None:
    """Compute `rows`, and add the best token at each end to its sequence's answer."""
    decode(rows)
    for sequence, place in ends:
        answers[sequence].append(int(logits(place).argmax()))


def score(tokens: list[int]) -> Any:
    """By one pass over all tokens."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    decode([(token, i, 0, True) for i, token in enumerate(tokens)])
    rows = numpy.stack([logits(i) for i in range(len(tokens))]).astype(numpy.float64)
    rows -= rows.max(-1, keepdims=True)
    return (rows - numpy.log(numpy.exp(rows).sum(-1, keepdims=True))).astype(numpy.float32)


serve(given, generate, score, version=llama_cpp.__version__)
