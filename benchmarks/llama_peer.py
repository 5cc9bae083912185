"""The Llama of transformers, trained step by step as its users do."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import transformers

from unlearn_jax.types import Batch


def step(
    batch: Batch, vocabulary: int, sizes: Mapping[str, int], rate: float
) -> tuple[str, Callable[[], Any]]:
    """A name, and one step of Adam on the batch: forward, backward, update."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    length = batch.inputs.shape[1]
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=sizes["width"],
        intermediate_size=sizes["hidden"],
        num_hidden_layers=sizes["depth"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["groups"],
        max_position_embeddings=length,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        use_cache=False,
    )
    model: Any = transformers.LlamaForCausalLM(config)
    rule = torch.optim.Adam(model.parameters(), lr=rate)
    inputs, targets = (
        torch.from_numpy(np.asarray(part, np.int64))
        for part in (batch.inputs, batch.targets)
    )

    def once() -> None:
        rule.zero_grad(set_to_none=True)
        logits = model(input_ids=inputs).logits
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, vocabulary), targets.reshape(-1)
        )
        loss.backward()
        rule.step()

    versions = f"{transformers.__version__}, PyTorch {torch.__version__.split('+')[0]}"
    return f"transformers {versions}", once
