"""OpenVINO GenAI with continuous batching, from a GGUF file."""

from collections.abc import Callable
from typing import Any

import numpy
import openvino
import openvino_genai

from benchmarks.sides.serving import Answers


class Program:
    """A pipeline with no prefix kept from one round to the next."""

    def __init__(self, given: dict[str, Any]) -> None:
        cache = openvino_genai.SchedulerConfig()
        cache.max_num_batched_tokens = 2048
        cache.max_num_seqs = given["rows"]
        cache.cache_size = 2
        cache.enable_prefix_caching = False
        self.pipeline = openvino_genai.ContinuousBatchingPipeline(
            given["model"], cache, "CPU", {"INFERENCE_NUM_THREADS": given["threads"]}
        )
        self.facts = {"version": openvino_genai.__version__, "scores": False}

    def generate(self, prompts: Answers, count: int, first: Callable[[], None]) -> Answers:
        """Greedily, without stopping at the end token."""
        options = openvino_genai.GenerationConfig()
        options.max_new_tokens, options.ignore_eos, options.do_sample = count, True, False
        tensors = [openvino.Tensor(numpy.array([prompt], numpy.int64)) for prompt in prompts]
        handles = [self.pipeline.add_request(i, one, options) for i, one in enumerate(tensors)]
        waiting = True
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
            if waiting:
                first()
                waiting = False
        return [list(handle.read_all()[0].generated_ids) for handle in handles]

    def score(self, tokens: list[int]) -> Any:
        """The pipeline gives no logits, and the facts say so."""
        raise RuntimeError("OpenVINO's pipeline gives no logits")
