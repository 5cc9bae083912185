"""EK-FAC of the mlp and its influence scores by curvlinops and kronfluence.

Optional like those of ``curvature_peers``. Both take the empirical Fisher. kronfluence
appends a one to the inputs of a layer, so that weights and bias share a block;
curvlinops is asked for separate blocks.
"""

import atexit
import importlib
import shutil
import tempfile
from typing import Any

import numpy as np
from curvature_peers import (
    Calls,
    Slices,
    as_it_is,
    chunks,
    family,
    has,
    module,
    numbers,
    quiet,
    tensors,
    torch,
    unwarned,
    use_all_cores,
)

from unlearn_jax.types import Batch

CURVLINOPS_CHUNK = 512
FACTOR_CHUNK = 128
SCORE_CHUNK = 256


def ekfac_fits(workload: Any) -> Calls:
    """Covariances, eigenvectors and corrected eigenvalues of all layers.

    Every call returns the trace of its matrix over the number of examples, which must
    be the mean of ‖gₙ‖², whatever the blocks are. kronfluence decomposes in float64 by
    default; it is run in float32 as well. It writes its factors into a temporary folder
    that is deleted, which is part of the call.

    Args:
        workload: mlp, with parameters and a batch of weights one.
    """
    if torch is None:
        return {}
    use_all_cores()
    calls: Calls = {}
    if has("curvlinops"):
        calls[f"curvlinops {numbers('curvlinops')}"] = quiet(curvlinops(workload))
    if has("kronfluence"):
        calls[f"kronfluence {numbers('kronfluence')}"] = quiet(kronfluence(workload))
    return calls


def ekfac_scores(workload: Any, queries: Batch, *, damping: float) -> Calls:
    """⟨g_q, (F + damping)⁻¹ gₙ⟩ of queries with all examples, F their mean.

    The factors are fitted here, outside of the call, which returns the scores (q, n) in
    numpy; the blocks of F hold weights and bias together.

    Args:
        workload: mlp, with parameters and a batch of weights one.
        queries: Examples of weight one.
        damping: Positive, in the units of F.
    """
    if not has("torch", "kronfluence"):
        return {}
    use_all_cores()
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with unwarned():
        analyzer, train = analyse(workload, folder)
        fit_factors(analyzer, train)
        arguments = importlib.import_module("kronfluence.arguments")
        options = arguments.ScoreArguments(damping_factor=damping)
    asked = Slices(*tensors(queries, family(workload)))

    def run() -> np.ndarray:
        analyzer.compute_pairwise_scores(
            scores_name="scores",
            factors_name="factors",
            query_dataset=asked,
            train_dataset=train,
            per_device_query_batch_size=len(asked),
            per_device_train_batch_size=SCORE_CHUNK,
            score_args=options,
            overwrite_output_dir=True,
        )
        return analyzer.load_pairwise_scores("scores")["all_modules"].numpy()

    return {f"kronfluence {numbers('kronfluence')}": quiet(run)}


def curvlinops(workload: Any) -> Any:
    """A fresh operator, fitted."""
    with unwarned():
        operator = importlib.import_module("curvlinops").EKFACLinearOperator
    inputs, targets = tensors(workload.batch, family(workload))
    net = module(workload)
    pairs = list(chunks(inputs, targets, CURVLINOPS_CHUNK))

    def run() -> float:
        fitted = operator(
            net,
            torch.nn.CrossEntropyLoss(reduction="sum"),
            list(net.parameters()),
            pairs,
            fisher_type="empirical",
            check_deterministic=False,
            num_per_example_loss_terms=1,
            num_data=len(targets),
        )
        fitted.compute_kronecker_factors()
        fitted.compute_eigenvalue_correction()
        return float(fitted.trace) / len(targets)

    return run


def kronfluence(workload: Any) -> Any:
    """All factors, in a folder that lives as long as the call."""

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            analyzer, train = analyse(workload, folder)
            fit_factors(analyzer, train)
            factors = analyzer.load_lambda_matrices("factors")
            squares = factors["lambda_matrix"].values()
            counts = factors["num_lambda_processed"].values()
            pairs = zip(squares, counts, strict=True)
            return sum(float(square.sum() / count) for square, count in pairs)

    return run


def analyse(workload: Any, folder: str) -> tuple[Any, Slices]:
    """The analyzer of the workload's net, and its training examples."""
    library = importlib.import_module("kronfluence")
    loader = importlib.import_module("kronfluence.utils.dataset").DataLoaderKwargs
    entropy = torch.nn.functional.cross_entropy

    class Classification(library.task.Task):
        """Sums of losses of the given labels, for examples and queries alike."""

        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False):
            """Empirical Fisher: nothing is sampled."""
            return entropy(model(batch[0]), batch[1], reduction="sum")

        def compute_measurement(self, batch: Any, model: Any):
            """The loss."""
            return entropy(model(batch[0]), batch[1], reduction="sum")

    task = Classification()
    analyzer = library.analyzer.Analyzer(
        analysis_name="peer",
        model=library.analyzer.prepare_model(module(workload), task),
        task=task,
        cpu=True,
        disable_tqdm=True,
        output_dir=folder,
    )
    analyzer.set_dataloader_kwargs(loader(collate_fn=as_it_is))
    return analyzer, Slices(*tensors(workload.batch, family(workload)))


def fit_factors(analyzer: Any, train: Slices, chunk: int = FACTOR_CHUNK) -> None:
    """Covariances, eigenvectors, and the variances along them."""
    arguments = importlib.import_module("kronfluence.arguments")
    analyzer.fit_all_factors(
        factors_name="factors",
        dataset=train,
        per_device_batch_size=chunk,
        factor_args=arguments.FactorArguments(
            strategy="ekfac", use_empirical_fisher=True
        ),
        overwrite_output_dir=True,
    )
