"""The help of `omnishard train` and of the commands that need torch, read from their sources without running them.

Importing a recipe imports torch, which takes seconds; a syntax tree of the same file takes milliseconds, and a recipe is
plain enough to be read from it: `recipe()` returns a dataclass call, or `replace(...)` of another recipe.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from sharding.errors import InputError
from sharding.options import nearest

PACKAGES = Path(__file__).parent.parent
RECIPES = Path(__file__).parent / "recipes"

_Statement = TypeVar("_Statement", bound=ast.stmt)


def list_recipes(folder: Path = RECIPES) -> list[tuple[str, str]]:
    """(name, first line of the docstring) of every recipe in the folder, by name."""
    paths = sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))
    return [(path.stem, (ast.get_docstring(_tree(path)) or "").partition("\n")[0]) for path in paths]


def find_recipe(name: str) -> Path:
    """The source of a recipe: a name in trainers/recipes, the path of a .py file, or a dotted module on the path.

    Raises:
        InputError: there is no such recipe; names the nearest.
    """
    path = Path(name) if name.endswith(".py") else _module(name) if "." in name else RECIPES / f"{name}.py"
    if path is None or not path.is_file() or name.startswith("_"):
        if name.endswith(".py"):
            raise InputError(f"a recipe file must exist; {name} does not: give the path of a .py file with recipe().")
        known = [recipe for recipe, _ in list_recipes()]
        raise InputError(
            f"RECIPE is one of {', '.join(known)}, a .py file or a module; found {name!r}.{nearest(name, known)}"
        )
    return path


def describe_recipe(name: str) -> str:
    """The recipe's docstring, and each field of its regime with type, meaning, and the recipe's value or the default.

    Raises:
        InputError: no such recipe, or a file whose `recipe()` cannot be followed to a dataclass.
    """
    path = find_recipe(name)
    recipe = _definition(path, "recipe", ast.FunctionDef)
    if recipe is None:
        raise InputError(f"A recipe file must define recipe(), and {path} does not; see trainers/recipes for examples.")
    regime = _follow_function(*recipe)
    title = f"Fields of {regime.definition.name} ({_shown(regime.path)}):"
    return f"{ast.get_docstring(_tree(path)) or name}\n\n{title}\n{_describe_fields(regime)}\n"


def describe_command(module: str) -> str:
    """The help of a command module whose options are its dataclass `Options`, "trainers.evaluate.classify" for one."""
    path = _module(module)
    options = _definition(path, "Options", ast.ClassDef) if path else None
    if options is None:
        raise InputError(f"{module} must be a module with a dataclass Options.")
    regime = _Regime(*options, {})
    return f"{ast.get_docstring(options[1]) or ''}\n\nOptions:\n{_describe_fields(regime)}\n"


@dataclass(frozen=True)
class _Regime:
    """A dataclass as written in a file, and the source text of the values that a recipe gives its fields."""

    path: Path
    definition: ast.ClassDef
    values: dict[str, str]


def _follow_function(path: Path, function: ast.FunctionDef) -> _Regime:
    returned = next((node.value for node in ast.walk(function) if isinstance(node, ast.Return)), None)
    return _follow(path, function, returned)


def _follow(path: Path, function: ast.FunctionDef, value: ast.expr | None) -> _Regime:
    """The regime that an expression of `function` stands for: CLASS(...), replace(X, ...), RECIPE(), or a local name."""
    if isinstance(value, ast.Name):
        assigned = [
            node.value for node in ast.walk(function) if isinstance(node, ast.Assign) and _assigns(node, value.id)
        ]
        return _follow(path, function, assigned[-1] if assigned else None)
    if isinstance(value, ast.Call):
        values = {word.arg: ast.unparse(word.value) for word in value.keywords if word.arg}
        if ast.unparse(value.func) in ("replace", "dataclasses.replace") and value.args:
            base = _follow(path, function, value.args[0])
            return _Regime(base.path, base.definition, base.values | values)
        found = _resolve(path, ast.unparse(value.func))
        if found and isinstance(found[1], ast.ClassDef):
            return _Regime(found[0], found[1], values)
        if found and isinstance(found[1], ast.FunctionDef) and found[1] is not function:
            return _follow_function(found[0], found[1])
    raise InputError(
        f"recipe() must return a dataclass call or replace(recipe(), ...) to have a help, "
        f"and {path}:{function.lineno} returns {ast.unparse(value)[:60] if value else 'nothing'!r}."
    )


def _assigns(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def _resolve(path: Path, dotted: str) -> tuple[Path, ast.stmt] | None:
    """Where `NAME` or `MODULE.NAME`, as written in `path`, is defined."""
    holder, _, name = dotted.rpartition(".")
    if not holder:
        local = _definition(path, name, ast.stmt)
        if local:
            return local
    for node in _tree(path).body:
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                known = alias.asname or alias.name
                if holder and known == holder:
                    module = _module(f"{node.module}.{alias.name}")
                    return _resolve(module, name) if module else None
                if not holder and known == name:
                    module = _module(node.module)
                    return _resolve(module, alias.name) if module else None
        if isinstance(node, ast.Import) and holder:
            for alias in node.names:
                if (alias.asname or alias.name) == holder:
                    module = _module(alias.name)
                    return _resolve(module, name) if module else None
    return None


def _definition(path: Path, name: str, kind: type[_Statement]) -> tuple[Path, _Statement] | None:
    for node in _tree(path).body:
        named = getattr(node, "name", None) == name
        if isinstance(node, kind) and (named or (isinstance(node, ast.Assign) and _assigns(node, name))):
            return path, node
    return None


def _module(dotted: str) -> Path | None:
    """The source of a module, found as an import would find it, without importing its packages."""
    inside = Path(*dotted.split("."))
    for folder in [PACKAGES, Path.cwd(), *map(Path, sys.path)]:
        for path in (folder / inside.with_name(inside.name + ".py"), folder / inside / "__init__.py"):
            if path.is_file():
                return path
    return None


@cache
def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be Python, and it is not: {error}.") from None


def _fields(path: Path, definition: ast.ClassDef) -> dict[str, tuple[Path, ast.AnnAssign, str]]:
    """name -> (file, definition, the string below it), those of base classes first."""
    fields: dict[str, tuple[Path, ast.AnnAssign, str]] = {}
    for base in definition.bases:
        found = _resolve(path, ast.unparse(base))
        if found and isinstance(found[1], ast.ClassDef):
            fields |= _fields(found[0], found[1])
    for node, below in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            doc = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
            fields[node.target.id] = (path, node, " ".join(str(doc).split()))
    return fields


def _describe_fields(regime: _Regime) -> str:
    lines: list[str] = []
    for name, (path, node, doc) in _fields(regime.path, regime.definition).items():
        kind = ast.unparse(node.annotation)
        if name in regime.values:
            value = f"recipe: {regime.values[name]}"
        else:
            value = f"default: {ast.unparse(node.value)}" if node.value else "required"
        if _is_function(path, node.annotation):
            head = f"  {name} [{value}] (a function: set it in a recipe file)"
        else:
            head = f"  --{name.replace('_', '-')} {kind} [{value}]"
        lines.append(head)
        lines += textwrap.wrap(doc, width=100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _is_function(path: Path, annotation: ast.expr) -> bool:
    """Whether a type is a Callable, also under a name given to it elsewhere (`Schedule`)."""
    names = [node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)]
    if "Callable" in names:
        return True
    aliases = [_resolve(path, name) for name in names]
    return any(
        _is_function(alias[0], alias[1].value) for alias in aliases if alias and isinstance(alias[1], ast.Assign)
    )


def _shown(path: Path) -> str:
    return str(path.relative_to(PACKAGES)) if path.is_relative_to(PACKAGES) else str(path)
