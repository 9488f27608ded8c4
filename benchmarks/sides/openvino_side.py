"""OpenVINO GenAI with continuous batching, from a GGUF file."""

from benchmarks.sides.serving import Answers, serve, settings

given = settings()

from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import numpy  # noqa: E402
import openvino  # noqa: E402
import openvino_genai  # noqa: E402

cache = openvino_genai.SchedulerConfig()
cache.max_num_batched_tokens = 2048
cache.max_num_seqs = given["rows"]
cache.cache_size = 2
cache.enable_prefix_caching = False
pipeline = openvino_genai.ContinuousBatchingPipeline(
    given["model"], cache, "CPU", {"INFERENCE_NUM_THREADS": given["threads"]}
)


def generate(prompts: Answers, count: int, first: Callable[[], None]) -> Answers:
    """Greedily, without stopping at the end token."""
    options = openvino_genai.GenerationConfig()
    options.max_new_tokens, options.ignore_eos, options.do_sample = count, True, False
    handles = [
        pipeline.add_request(i, openvino.Tensor(numpy.array([prompt], numpy.int64)), options)
        for i, prompt in enumerate(prompts)
    ]
    waiting = True
    while pipeline.has_non_finished_requests():
        pipeline.step()
        if waiting:
            first()
            waiting = False
    return [list(handle.read_all()[0].generated_ids) for handle in handles]


def score(tokens: list[int]) -> Any:
    """The pipeline gives no logits."""
    raise NotImplementedError


serve(given, generate, score, version=openvino_genai.__version__)
