"""The one-way rule: a room imports only rooms to its left."""

import ast
import graphlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ORDER = (
    "types",
    "tree",
    "placement",
    "loop",
    "options",
    "keys",
    "storage",
    "parallel",
    "data",
    "models",
    "train",
    "diffusion",
    "generators",
    "curvature",
    "solvers",
    "attribution",
    "methods",
    "evaluation",
    "ensembles",
    "results",
    "service",
)
ONLY_IN = {
    "flax": ("unlearn_jax/models/",),
    "matplotlib": ("unlearn_jax/results/plot",),
    "tyro": ("experiments/",),
    "rich": ("experiments/", "unlearn_jax/results/terminal.py"),
    "sklearn": ("unlearn_jax/data/", "unlearn_jax/evaluation/confidence.py"),
    "tensorflow_datasets": ("unlearn_jax/data/",),
    "orbax": ("unlearn_jax/train/checkpoint.py", "unlearn_jax/train/exchange.py"),
    "torch": ("benchmarks/",),
    "tensorflow": (),
}
FOLDERS = ("unlearn_jax", "kernels", "experiments", "benchmarks")
FILES = sorted(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Full dotted names of all modules that a file imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module == "unlearn_jax":
                names |= {f"unlearn_jax.{alias.name}" for alias in node.names}
    return names


def room(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "unlearn_jax" and len(parts) > 1 else None


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_imports_point_left():
    wrong = []
    for path in FILES:
        where = short(path)
        if not where.startswith("unlearn_jax/") or where == "unlearn_jax/__init__.py":
            continue
        own = ORDER.index(where.split("/")[1].removesuffix(".py"))
        for dotted in imports(path):
            other = room(dotted)
            if other not in (None, "__init__") and ORDER.index(str(other)) > own:
                wrong.append(f"{where} imports {dotted}")
    assert not wrong


def test_library_never_imports_experiments():
    for path in FILES:
        if short(path).startswith(("unlearn_jax/", "kernels/")):
            first = {dotted.split(".")[0] for dotted in imports(path)}
            assert not first & {"experiments", "benchmarks", "tests"}, path


def test_kernels_import_jax_only():
    for path in FILES:
        if short(path).startswith("kernels/"):
            first = {dotted.split(".")[0] for dotted in imports(path)}
            assert not first & {"unlearn_jax", "flax", "optax"}, path


def test_dependencies_stay_in_their_room():
    wrong = []
    for path in FILES:
        for dotted in imports(path):
            homes = ONLY_IN.get(dotted.split(".")[0])
            if homes is not None and not short(path).startswith(homes):
                wrong.append(f"{short(path)} imports {dotted}")
    assert not wrong


def test_no_two_modules_import_each_other():
    """Nor do more of them in a ring, wherever in the file the import stands."""
    names = {
        short(path)
        .removesuffix(".py")
        .removesuffix("/__init__")
        .replace("/", "."): path
        for path in FILES
        if short(path).startswith("unlearn_jax/")
    }
    graph = {
        name: [other for other in imports(path) if other in names and other != name]
        for name, path in names.items()
    }
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(names)


def test_one_file_asks_for_the_platform():
    """Programs are made for absent platforms too: see ``unlearn_kernels.target``."""
    tests = [path for path in Path(__file__).parent.rglob("*.py")]
    asking = [
        short(path)
        for path in [*FILES, *tests]
        if any(
            getattr(node, "attr", getattr(node, "name", None)) == "default_backend"
            for node in ast.walk(ast.parse(path.read_text()))
        )
    ]
    assert asking == ["kernels/unlearn_kernels/target.py"]


def test_files_stay_short():
    long = [short(p) for p in FILES if len(p.read_text().splitlines()) > 400]
    assert not long


def test_every_file_says_its_purpose():
    silent = [
        short(p) for p in FILES if not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert not silent


def test_the_rule_would_notice_a_wrong_arrow(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from unlearn_jax import methods\nimport flax.nnx\n")
    assert {room(dotted) for dotted in imports(wrong)} >= {"methods"}
    assert "flax.nnx" in imports(wrong)


def test_no_two_test_files_share_a_name():
    names = [path.name for path in Path(__file__).parent.rglob("*.py")]
    names = [name for name in names if name != "conftest.py"]
    assert sorted(set(names)) == sorted(names)  # pytest imports each by its name
