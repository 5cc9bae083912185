"""EK-FAC of a Llama's kernels by kronfluence, on the model of transformers."""

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from curvature_peers import Slices, as_it_is, numbers, quiet, torch, use_all_cores
from ekfac_peers import fit_factors
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.task import Task
from kronfluence.utils.dataset import DataLoaderKwargs
from transformers import LlamaForCausalLM

from unlearn_jax.train.llama import Pretrained, write_llama
from unlearn_jax.types import Batch

THEIRS = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


def fit(
    found: Pretrained, batch: Batch, blocks: Sequence[int]
) -> tuple[str, Callable[[], float]]:
    """A name, and one fit of all factors; it returns the trace of their matrix.

    Covariances, eigenvectors (in float64, its default), and the variances along them,
    four sequences at a time. Factors are written to a folder, which is part of the
    call.

    Args:
        found: The model, which is written and read by transformers, outside the call.
        batch: Sequences of weight one.
        blocks: Whose kernels are fitted.
    """
    use_all_cores()
    with tempfile.TemporaryDirectory() as folder:
        write_llama(folder, found.shape, found.variables.params)
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    modules = [
        f"model.layers.{block}.mlp.{name}"
        for block in blocks
        for name in THEIRS.values()
    ]

    class Words(Task):
        """Sums over the tokens of the losses of what follows."""

        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False):
            """Empirical Fisher: nothing is sampled."""
            logits = model(input_ids=batch[0], use_cache=False).logits.flatten(0, 1)
            return torch.nn.functional.cross_entropy(
                logits, batch[1].flatten(), reduction="sum"
            )

        def compute_measurement(self, batch: Any, model: Any):
            """The loss."""
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            """The kernels."""
            return modules

    task = Words()
    prepared = prepare_model(model, task)
    rows = (np.asarray(part, np.int64) for part in (batch.inputs, batch.targets))
    train = Slices(*map(torch.from_numpy, rows))

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            analyzer = Analyzer(
                analysis_name="peer",
                model=prepared,
                task=task,
                cpu=True,
                disable_tqdm=True,
                output_dir=folder,
            )
            analyzer.set_dataloader_kwargs(DataLoaderKwargs(collate_fn=as_it_is))
            fit_factors(analyzer, train, chunk=4)
            factors = analyzer.load_lambda_matrices("factors")
            squares = factors["lambda_matrix"].values()
            counts = factors["num_lambda_processed"].values()
            pairs = zip(squares, counts, strict=True)
            return sum(float(square.sum() / count) for square, count in pairs)

    return f"kronfluence {numbers('kronfluence')}", quiet(run)
