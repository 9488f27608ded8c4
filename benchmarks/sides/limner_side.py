"""limner."""

from benchmarks.sides.serving import Answers, serve, settings

given = settings()

from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402

import limner  # noqa: E402
from limner import kernels  # noqa: E402
from limner.inference.engine import Engine  # noqa: E402
from limner.inference.sampling import Sampling  # noqa: E402
from limner.nn.packed import weight_bytes  # noqa: E402

torch.set_num_threads(given["threads"])
kernels.set_threads(given["threads"])
how = {name: given[name] for name in ("weights", "activation_bits") if name in given}
model = limner.load(given["model"], device="cpu", **how)
engine = Engine(model.network, rows=given["rows"], capacity=given["capacity"], prefix_pages=0)


def generate(prompts: Answers, count: int, first: Callable[[], None]) -> Answers:
    """Greedily, without stopping at the end token."""
    sampling = Sampling(temperature=0, max_tokens=count, ignore_eos=True)
    answers = [engine.submit(prompt, sampling) for prompt in prompts]
    waiting = True
    while engine.busy:
        engine.step()
        if waiting and all(answer.generated for answer in answers):
            first()
            waiting = False
    return [answer.generated for answer in answers]


@torch.inference_mode()
def score(tokens: list[int]) -> Any:
    """By the full pass."""
    return model.logits(tokens).log_softmax(-1).numpy()


serve(given, generate, score, weight_bytes=weight_bytes(model.network))
