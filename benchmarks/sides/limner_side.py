"""limner."""

from collections.abc import Callable
from typing import Any

import torch

import limner
from benchmarks.sides.serving import Answers
from limner import kernels
from limner.inference.engine import Engine
from limner.inference.sampling import Sampling
from limner.nn.packed import weight_bytes


class Program:
    """The engine, with no prefix kept from one round to the next."""

    def __init__(self, given: dict[str, Any]) -> None:
        torch.set_num_threads(given["threads"])
        kernels.set_threads(given["threads"])
        how = {name: given[name] for name in ("weights", "activation_bits") if name in given}
        self.model = limner.load(given["model"], device="cpu", **how)
        self.engine = Engine(
            self.model.network, rows=given["rows"], capacity=given["capacity"], prefix_pages=0
        )
        self.facts = {"weight_bytes": weight_bytes(self.model.network)}

    def generate(self, prompts: Answers, count: int, first: Callable[[], None]) -> Answers:
        """Greedily, without stopping at the end token."""
        sampling = Sampling(temperature=0, max_tokens=count, ignore_eos=True)
        answers = [self.engine.submit(prompt, sampling) for prompt in prompts]
        waiting = True
        while self.engine.busy:
            self.engine.step()
            if waiting and all(answer.generated for answer in answers):
                first()
                waiting = False
        return [answer.generated for answer in answers]

    @torch.inference_mode()
    def score(self, tokens: list[int]) -> Any:
        """By the full pass."""
        return self.model.logits(tokens).log_softmax(-1).numpy()
