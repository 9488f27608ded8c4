"""transformers: PyTorch's operators in float32."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer

from benchmarks.sides.serving import Answers


class First(BaseStreamer):
    """Notices the first new token; what comes before it is the prompt."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call, self.seen = call, 0

    def put(self, value: Any) -> None:
        """The prompt, then each token."""
        self.seen += 1
        if self.seen == 2:
            self.call()

    def end(self) -> None:
        """Nothing."""


class Program:
    """`generate`, one batch at a time."""

    def __init__(self, given: dict[str, Any]) -> None:
        torch.set_num_threads(given["threads"])
        self.model: Any = AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.float32)
        self.facts: dict[str, Any] = {}

    @torch.inference_mode()
    def generate(self, prompts: Answers, count: int, first: Callable[[], None]) -> Answers:
        """Greedily; all prompts are of one length, so that nothing is padded."""
        tokens = torch.tensor(prompts)
        result = self.model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
            streamer=First(first) if len(prompts) == 1 else None,
        )
        answers: Answers = result[:, tokens.shape[1] :].tolist()
        return answers

    @torch.inference_mode()
    def score(self, tokens: list[int]) -> Any:
        """By the full pass."""
        return self.model(torch.tensor([tokens])).logits[0].log_softmax(-1).numpy()
