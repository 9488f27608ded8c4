"""transformers: PyTorch's operators in float32."""

from benchmarks.sides.serving import Answers, serve, settings

given = settings()

from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from transformers.generation.streamers import BaseStreamer  # noqa: E402

torch.set_num_threads(given["threads"])
model: Any = AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.float32)


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


@torch.inference_mode()
def generate(prompts: Answers, count: int, first: Callable[[], None]) -> Answers:
    """Greedily; all prompts are of one length, so that nothing is padded."""
    tokens = torch.tensor(prompts)
    result = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=count, min_new_tokens=count,
        do_sample=False, pad_token_id=0, streamer=First(first) if len(prompts) == 1 else None,
    )  # fmt: skip
    answers: Answers = result[:, tokens.shape[1] :].tolist()
    return answers


@torch.inference_mode()
def score(tokens: list[int]) -> Any:
    """By the full pass."""
    return model(torch.tensor([tokens])).logits[0].log_softmax(-1).numpy()


serve(given, generate, score)
