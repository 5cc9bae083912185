"""Gradients and Fisher diagonals of the same nets by PyTorch and libraries on it.

All of them are optional: a package that is not installed adds no contender, and
:func:`missing` names it. A contender is a call that does the whole work once, on the
numbers of the JAX workload, and returns a tree with the keys and layouts of the JAX
parameters that holds PyTorch tensors; :func:`flat` brings it to numpy.
"""

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any, TypeAlias

import jax
import numpy as np

from unlearn_jax.types import Batch

Calls: TypeAlias = dict[str, Callable[[], Any]]

PACKAGES = {
    "torch": "torch",
    "backpack": "backpack-for-pytorch",
    "nngeometry": "nngeometry",
    "curvlinops": "curvlinops-for-pytorch",
    "kronfluence": "kronfluence",
}
"""Module and the distribution that brings it."""

# Examples at a time; of those tried (4 to 64 for gradients of single examples, 16 to
# 1,024 for the others) about the fastest on two cores.
GRADIENT_CHUNK = {"mlp": 1024, "cnn": 256, "lm": 64}
SINGLE_CHUNK = {"mlp": 64, "cnn": 64, "lm": 32}
BACKPACK_CHUNK = {"mlp": 1024, "cnn": 256}
NNGEOMETRY_CHUNK = {"mlp": 1024, "cnn": 128}


def has(*modules: str) -> bool:
    """Whether all of these are installed."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


torch: Any = importlib.import_module("torch") if has("torch") else None


def missing() -> list[str]:
    """Distributions of peers that are not installed."""
    return [name for module, name in PACKAGES.items() if not has(module)]


def gradients(workload: Any) -> Calls:
    """The gradient of the sum of losses.

    Args:
        workload: mlp, cnn or lm, with parameters and a batch of weights one.
    """
    name = family(workload)
    if torch is None:
        return {}
    use_all_cores()
    title = f"PyTorch {numbers('torch')}"
    inputs, targets = tensors(workload.batch, name)
    size = GRADIENT_CHUNK[name]
    if name == "lm":
        tree = jax.tree.map(lambda leaf: tensor(leaf).requires_grad_(), workload.params)
        leaves, structure = jax.tree.flatten(tree)

        def total(x: Any, y: Any) -> Any:
            return sequence_losses(language_model(tree, x, fused=True), y).sum()

        def arrange(sums: list[Any]) -> Any:
            return structure.unflatten(sums)
    else:
        net = module(workload)
        leaves = list(net.parameters())

        def total(x: Any, y: Any) -> Any:
            return torch.nn.functional.cross_entropy(net(x), y, reduction="sum")

        def arrange(sums: list[Any]) -> Any:
            return as_jax(name, sums)

    def run() -> Any:
        sums: list[Any] | None = None
        for x, y in chunks(inputs, targets, size):
            parts = torch.autograd.grad(total(x, y), leaves)
            sums = list(parts) if sums is None else torch._foreach_add(sums, parts)
        return arrange(sums or [])

    return {title: quiet(run)}


def fisher_diagonals(workload: Any) -> Calls:
    """Σₙ gₙ² over examples, gₙ the gradient of the loss of the given label.

    All are exact. BackPACK and nnGeometry know the layers of mlp and cnn only.

    Args:
        workload: mlp, cnn or lm, with parameters and a batch of weights one.
    """
    name = family(workload)
    if torch is None:
        return {}
    use_all_cores()
    title = f"torch.func {numbers('torch')}, vmap(grad)"
    calls = {title: quiet(mapped_gradients(workload))}
    if name != "lm" and has("backpack"):
        calls[f"BackPACK {numbers('backpack')}"] = quiet(backpack(workload))
    if name != "lm" and has("nngeometry"):
        calls[f"nnGeometry {numbers('nngeometry')}"] = quiet(nngeometry(workload))
    return calls


def diagonal_values(workload: Any) -> dict[str, np.ndarray]:
    """What every contender of :func:`fisher_diagonals` finds, as :func:`flat` does."""
    return {name: flat(call()) for name, call in fisher_diagonals(workload).items()}


def flat(tree: Any) -> np.ndarray:
    """One vector, in the order of ``jax.flatten_util.ravel_pytree`` of the parameters.

    That is: leaves in the order of ``jax.tree.leaves``, each in the layout it has in
    JAX (kernels of dense layers (in, out), of convolutions (h, w, in, out)), row by
    row.
    """
    leaves = jax.tree.leaves(tree)
    return np.concatenate([np.asarray(leaf.detach()).ravel() for leaf in leaves])


def deviation(ours: Any, theirs: np.ndarray) -> float:
    """Largest ‖theirs − ours‖₁ / ‖ours‖₁ over the tensors of a tree.

    Args:
        ours: Tree of arrays with the structure of the parameters.
        theirs: From :func:`flat`.
    """
    arrays = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(ours)]
    splits = np.cumsum([array.size for array in arrays])[:-1]
    return max(
        float(np.abs(other - own).sum() / np.abs(own).sum())
        for own, other in zip(arrays, np.split(theirs, splits), strict=True)
    )


def mapped_gradients(workload: Any) -> Callable[[], Any]:
    """torch.func: gradients of single examples side by side, squared and added."""
    name = family(workload)
    inputs, targets = tensors(workload.batch, name)
    if name == "lm":
        params = jax.tree.map(tensor, workload.params)
        order: list[str] = []

        def loss(p: Any, x: Any, y: Any) -> Any:
            outputs = language_model(p, x[None], fused=False)
            return sequence_losses(outputs, y[None])[0]
    else:
        net = module(workload)
        params = {key: value.detach() for key, value in net.named_parameters()}
        order = list(params)

        def loss(p: Any, x: Any, y: Any) -> Any:
            outputs = torch.func.functional_call(net, p, (x[None],))
            return torch.nn.functional.cross_entropy(outputs, y[None])

    single = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    def run() -> Any:
        sums = jax.tree.map(torch.zeros_like, params)
        for x, y in chunks(inputs, targets, SINGLE_CHUNK[name]):
            slopes = single(params, x, y)
            jax.tree.map(lambda s, g: s.add_(g.square_().sum(0)), sums, slopes)
        return as_jax(name, [sums[key] for key in order]) if order else sums

    return run


def backpack(workload: Any) -> Callable[[], Any]:
    """BackPACK's SumGradSquared, which forms no gradients in dense layers."""
    with unwarned():
        library = importlib.import_module("backpack")
        extension = importlib.import_module("backpack.extensions").SumGradSquared
    name = family(workload)
    inputs, targets = tensors(workload.batch, name)
    net = library.extend(module(workload))
    loss = library.extend(torch.nn.CrossEntropyLoss(reduction="sum"))

    def run() -> Any:
        sums: list[Any] | None = None
        for x, y in chunks(inputs, targets, BACKPACK_CHUNK[name]):
            net.zero_grad()
            with library.backpack(extension()):
                loss(net(x), y).backward()
            parts = [p.sum_grad_squared for p in net.parameters()]
            sums = parts if sums is None else torch._foreach_add(sums, parts)
        return as_jax(name, sums or [])

    return run


def nngeometry(workload: Any) -> Callable[[], Any]:
    """A diagonal matrix by nnGeometry, of the log-likelihood of the given label.

    Its ``FIM`` takes the expectation over labels of the model; the empirical Fisher is
    its generator with one output for each example.
    """
    with unwarned():
        metrics = importlib.import_module("nngeometry.metrics")
        diagonal = importlib.import_module("nngeometry.object").PMatDiag
        layers = importlib.import_module("nngeometry.layercollection").LayerCollection
    name = family(workload)
    inputs, targets = tensors(workload.batch, name)
    net = module(workload)
    collection = layers.from_model(net)

    def likelihood(x: Any, y: Any) -> Any:
        return -torch.nn.functional.cross_entropy(net(x), y, reduction="none")

    generator = metrics.TorchHooksJacobianBackend(
        layer_collection=collection, model=net, function=likelihood
    )
    loader = torch.utils.data.DataLoader(
        Slices(inputs, targets),
        batch_size=NNGEOMETRY_CHUNK[name],
        collate_fn=as_it_is,
    )
    sizes = [p.numel() for p in net.parameters()]

    def run() -> Any:
        values = diagonal(generator=generator, examples=loader).get_diag()
        parts = torch.split(values * len(targets), sizes)
        shaped = [v.view_as(p) for v, p in zip(parts, net.parameters(), strict=True)]
        return as_jax(name, shaped)

    return run


class Slices:
    """Data set that hands out whole batches, so that none pays for stacking."""

    def __init__(self, inputs: Any, targets: Any):
        self.inputs = inputs
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        return self.inputs[index], self.targets[index]

    def __getitems__(self, indices: list[int]) -> Any:
        """A batch; loaders call this where it is defined."""
        return self.inputs[indices], self.targets[indices]


def as_it_is(batch: Any) -> Any:
    """Collate function for batches that are ready."""
    return batch


def module(workload: Any) -> Any:
    """The mlp or cnn as a sequence of PyTorch's own layers, with the same weights."""
    nn = torch.nn
    name, params = family(workload), workload.params
    parts: list[Any] = []
    if name == "mlp":
        for layer in range(3):
            parts += [nn.Linear(*params[f"w{layer}"].shape), nn.ReLU()]
        parts.pop()
    else:
        for layer, stride in enumerate((1, 2, 2)):
            fan_in, fan_out = params[f"k{layer}"].shape[2:]
            # "SAME" on even sides: stride 2 pads one row below, one column right.
            if stride == 2:
                parts.append(nn.ZeroPad2d((0, 1, 0, 1)))
            pad = 1 if stride == 1 else 0
            parts += [nn.Conv2d(fan_in, fan_out, 3, stride, pad), nn.ReLU()]
        parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        parts.append(nn.Linear(*params["w"].shape))
    net = nn.Sequential(*parts)
    with torch.no_grad():
        for key, value in zip(KEYS[name], net.parameters(), strict=True):
            value.copy_(tensor(params[key]).permute(TO_TORCH[value.ndim]))
    return net


KEYS = {
    "mlp": ("w0", "b0", "w1", "b1", "w2", "b2"),
    "cnn": ("k0", "b0", "k1", "b1", "k2", "b2", "w", "c"),
}
"""JAX keys in the order of PyTorch's parameters."""
TO_TORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
TO_JAX = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def as_jax(name: str, values: list[Any]) -> dict[str, Any]:
    """Tensors in the order of a module's parameters, with JAX's keys and layouts."""
    pairs = zip(KEYS[name], values, strict=True)
    return {key: value.permute(TO_JAX[value.ndim]) for key, value in pairs}


def language_model(p: Any, tokens: Any, *, fused: bool) -> Any:
    """Logits of the workload's transformer from its tree of tensors.

    Args:
        p: Parameters, in the layouts of JAX.
        tokens: (n, t).
        fused: PyTorch's own attention; ``vmap`` needs the plain one.
    """
    functional = torch.nn.functional
    (n, t), d, heads = tokens.shape, p["embed"].shape[1], 4
    angle = np.arange(t)[:, None] / 10_000 ** (np.arange(d // 2) / (d // 2))
    places = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    def linear(own: Any, x: Any) -> Any:
        return functional.linear(x, own["kernel"].T, own["bias"])

    def normalise(own: Any, x: Any) -> Any:
        return functional.layer_norm(x, (d,), own["scale"], own["bias"], eps=1e-6)

    def attend(own: Any, x: Any) -> Any:
        split = linear(own["qkv"], x).reshape(n, t, 3, heads, d // heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        if fused:
            values = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            future = torch.ones(t, t, dtype=torch.bool).triu(1)
            scores = q @ k.transpose(2, 3) * (d // heads) ** -0.5
            values = scores.masked_fill(future, -1e9).softmax(dim=-1) @ v
        return linear(own["mix"], values.transpose(1, 2).reshape(n, t, d))

    x = functional.embedding(tokens, p["embed"]) + torch.from_numpy(places).float()
    for block in range(2):
        own = p[f"block{block}"]
        x = x + attend(own, normalise(own["norm1"], x))
        hidden = linear(own["up"], normalise(own["norm2"], x))
        x = x + linear(own["down"], functional.gelu(hidden, approximate="tanh"))
    return normalise(p["norm"], x) @ p["out"]


def sequence_losses(outputs: Any, targets: Any) -> Any:
    """Mean over tokens, one value for each sequence."""
    entropy = torch.nn.functional.cross_entropy
    return entropy(outputs.transpose(1, 2), targets, reduction="none").mean(dim=1)


def family(workload: Any) -> str:
    """The net's own name: mlp, cnn or lm, without what is said in brackets."""
    name = workload.name.split()[0]
    if name not in GRADIENT_CHUNK:
        raise ValueError(f"peers got workload {name}, expected mlp, cnn or lm")
    return name


def tensors(batch: Batch, name: str) -> tuple[Any, Any]:
    """Inputs and targets of a batch whose weights are one; images channels first."""
    if not np.all(np.asarray(batch.weights) == 1):
        raise ValueError("peers got weights other than one; their sums know none")
    inputs = tensor(batch.inputs)
    if name == "cnn":
        inputs = inputs.permute(0, 3, 1, 2).contiguous()
    return inputs.long() if name == "lm" else inputs, tensor(batch.targets).long()


def tensor(array: Any) -> Any:
    """A copy in PyTorch's memory."""
    return torch.from_numpy(np.array(array))


def chunks(inputs: Any, targets: Any, size: int) -> Iterator[tuple[Any, Any]]:
    """Pairs of at most ``size`` examples."""
    return zip(inputs.split(size), targets.split(size), strict=True)


def numbers(package: str) -> str:
    """Version of a package, without the build."""
    return version(PACKAGES[package]).split("+")[0]


def use_all_cores() -> None:
    """As many threads as there are cores for this process."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def unwarned() -> Any:
    """Block in which warnings are dropped, even where they are made errors."""
    return warnings.catch_warnings(action="ignore")


def quiet(call: Callable[[], Any]) -> Callable[[], Any]:
    """The same call without its warnings."""

    def run() -> Any:
        with unwarned():
            return call()

    return run
