"""llama.cpp, through its C interface, sequences batched as its own server does."""

import ctypes
from collections.abc import Callable
from typing import Any

import llama_cpp
import numpy

from benchmarks.sides.serving import Answers

QUIET = llama_cpp.llama_log_callback(lambda *_: None)


class Program:
    """A model, a context and a batch."""

    def __init__(self, given: dict[str, Any]) -> None:
        llama_cpp.llama_log_set(QUIET, None)
        llama_cpp.llama_backend_init()
        settings = llama_cpp.llama_model_default_params()
        settings.n_gpu_layers = 0
        model = llama_cpp.llama_model_load_from_file(given["model"].encode(), settings)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        shape = context_settings(given)
        self.most = shape.n_batch
        self.context = llama_cpp.llama_init_from_model(model, shape)
        self.batch = llama_cpp.llama_batch_init(self.most, 0, 1)
        self.facts = {"version": llama_cpp.__version__}

    def generate(self, prompts: Answers, count: int, first: Callable[[], None]) -> Answers:
        """Greedily: the prompts in batches of n_batch, then a token for each sequence at once."""
        self.forget()
        answers: Answers = [[] for _ in prompts]
        rows: list[tuple[int, int, int, bool]] = []
        ends: list[tuple[int, int]] = []
        for sequence, prompt in enumerate(prompts):
            if len(rows) + len(prompt) > self.most:
                self.extend(rows, ends, answers)
                rows, ends = [], []
            rows += [(t, i, sequence, i == len(prompt) - 1) for i, t in enumerate(prompt)]
            ends.append((sequence, len(rows) - 1))
        self.extend(rows, ends, answers)
        first()
        for step in range(count - 1):
            pending = [
                (answer[-1], len(prompts[i]) + step, i, True) for i, answer in enumerate(answers)
            ]
            self.extend(pending, [(i, i) for i in range(len(prompts))], answers)
        return answers

    def score(self, tokens: list[int]) -> Any:
        """By one pass over all tokens."""
        self.forget()
        self.decode([(token, i, 0, True) for i, token in enumerate(tokens)])
        rows = numpy.stack([self.logits(i) for i in range(len(tokens))]).astype(numpy.float64)
        rows -= rows.max(-1, keepdims=True)
        return (rows - numpy.log(numpy.exp(rows).sum(-1, keepdims=True))).astype(numpy.float32)

    def extend(self, rows: list[Any], ends: list[tuple[int, int]], answers: Answers) -> None:
        """Compute `rows`, and add the best token at each end to its sequence's answer."""
        self.decode(rows)
        for sequence, place in ends:
            answers[sequence].append(int(self.logits(place).argmax()))

    def decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """One pass over (token, position, sequence, whether its logits are wanted)."""
        batch = self.batch
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, wanted
        batch.n_tokens = len(rows)
        if llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")

    def logits(self, place: int) -> Any:
        """The logits at one place of the last batch, without a copy."""
        address = llama_cpp.llama_get_logits_ith(self.context, place)
        pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
        return numpy.ctypeslib.as_array(pointer, (self.vocabulary,))

    def forget(self) -> None:
        """Empty the cache."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)


def context_settings(given: dict[str, Any]) -> Any:
    """A cache for all sequences, and batches as large as is worth while."""
    settings = llama_cpp.llama_context_default_params()
    size = given["rows"] * given["capacity"]
    settings.n_ctx = size
    settings.n_batch = settings.n_ubatch = max(512, min(size, 2048))
    settings.n_seq_max = given["rows"]
    settings.n_threads = settings.n_threads_batch = given["threads"]
    settings.kv_unified = True
    return settings
