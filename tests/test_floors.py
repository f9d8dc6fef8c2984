"""An import may only go down; rooms on one floor do not see each other; heavy libraries stay out of `--help`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BELOW = {
    "omnishard": {"pipelines", "trainers", "graph_mining", "sharding"},
    "pipelines": {"graph_mining", "sharding"},
    "trainers": {"graph_mining", "sharding"},
    "graph_mining": {"sharding"},
    "sharding": set(),
}
HEAVY = {
    "torch",
    "torchvision",
    "apache_beam",
    "nvidia",
    "faiss",
    "decord",
    "av",
    "PIL",
    "simplejpeg",
    "matplotlib",
    "jinja2",
    "pyarrow",
}
ROOMS = sorted(BELOW)
FILES = [
    path
    for room in ROOMS
    for path in ([ROOT / "omnishard.py"] if room == "omnishard" else sorted((ROOT / room).rglob("*.py")))
]


def imported(node: ast.AST) -> set[str]:
    names: set[str] = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            names |= {alias.name for alias in child.names}
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            names.add(child.module or "")
    return names


def at_import(tree: ast.Module) -> set[str]:
    """What a module imports while it is being imported: all but the bodies of functions and of TYPE_CHECKING."""
    names: set[str] = set()
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {name.partition(".")[0] for name in imported(node)}
        todo += list(ast.iter_child_nodes(node))
    return names


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_go_down(path: Path) -> None:
    room, tree = room_of(path), ast.parse(path.read_text())
    rooms = {name.partition(".")[0] for name in imported(tree)} & set(BELOW)
    assert rooms <= BELOW[room] | {room}
    heavy = at_import(tree) & HEAVY
    if room in ("sharding", "omnishard") or path.name in ("__init__.py", "__main__.py", "options.py", "help.py"):
        assert not heavy
    elif room == "pipelines":
        assert not heavy & {"torch", "torchvision", "nvidia", "faiss", "decord"}
    elif room == "trainers":
        assert not heavy & {"apache_beam"}


def test_trainers_have_floors_of_their_own() -> None:
    """regimes and fit never know a recipe or a claim; models know nothing above them."""
    for path in sorted((ROOT / "trainers").rglob("*.py")):
        seen = {name for name in imported(ast.parse(path.read_text())) if name.startswith("trainers.")}
        part = path.relative_to(ROOT / "trainers").parts[0]
        if part == "models":
            assert all(name.startswith("trainers.models") for name in seen), path
        elif part not in ("recipes", "claims", "__main__.py", "help.py"):
            assert not any(name.startswith(("trainers.recipes", "trainers.claims")) for name in seen), path


def test_the_check_sees_a_forbidden_import() -> None:
    tree = ast.parse("from pipelines import shards\nif True:\n    import torch\ndef f():\n    import faiss\n")
    assert {n.partition(".")[0] for n in imported(tree)} & set(BELOW) == {"pipelines"}
    assert at_import(tree) & HEAVY == {"torch"}


def test_importing_the_command_loads_nothing_heavy() -> None:
    code = "import sys, omnishard, pipelines.__main__, trainers.__main__; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not [name for name in HEAVY if f"'{name}'" in loaded]
