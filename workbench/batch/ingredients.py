"""What a run is made of: a change in any of it, and in nothing else, makes it another run."""

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import workbench
from workbench.runs.files import plain
from workbench.runs.provenance import sha256

_NAMED = re.compile(r"((?:workbench)?(?:\.\w+)+):\w+")  # a form of a kernel, loaded when it is first chosen
PACKAGE = Path(workbench.__file__).resolve().parent


def key_of(ingredients: Mapping[str, object]) -> str:
    """Twelve hexadecimal digits that tell these ingredients from any others."""
    return hashlib.sha256(json.dumps(plain(ingredients), sort_keys=True).encode()).hexdigest()[:12]


def package_files(source: str, package: str = "workbench") -> dict[str, str]:
    """The files of the package that a piece of code imports, directly or through others, and their SHA-256.

    Imports inside functions count, and so do modules that are loaded when they are first used: names in a table
    `_HOME`, and texts such as "workbench.kernels.mlstm.chunkwise:mlstm". A name put together otherwise is not seen.

    Args:
        source: the code.
        package: of the code, for its relative imports.
    """
    found, left = {}, list(_imported(source, package))
    while left:
        name = left.pop()
        if name not in found and (path := _file_of(name)) is not None:
            found[name] = path
            left += _imports_of(path, name)
            left.append(name.rpartition(".")[0])
    return {str(path.relative_to(PACKAGE.parent)): _sha256(path) for path in sorted(set(found.values()))}


def data_files(params: object) -> dict[str, str]:
    """The files that parameters name, and their SHA-256; the sets of the registry are part of the package's code."""
    return {text: sha256(Path(text)) for text in sorted(set(_texts(params))) if _is_file(text)}


def why(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """What differs between two sets of ingredients, as short sentences."""
    said = []
    for kind in sorted(before.keys() | after.keys()):
        old, new = before.get(kind), after.get(kind)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            said += [f"{kind}: {text}" for text in _changes(old, new, files=kind in ("package", "data"))]
        elif old != new:
            said.append(f"{kind}: changed" if kind == "notebook" else f"{kind}: {old} -> {new}")
    return said


def _changes(old: Mapping, new: Mapping, *, files: bool) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name, ...) == new.get(name, ...):
            continue
        if files:
            yield f"{name} {'is new' if name not in old else 'is gone' if name not in new else 'changed'}"
        else:
            yield f"{name} {old.get(name, 'absent')} -> {new.get(name, 'absent')}"


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for item in inside:
        yield from _texts(item)


def _is_file(text: str) -> bool:
    try:
        return bool(text) and Path(text).is_file()
    except OSError:  # too long to be a path
        return False


@cache
def _sha256(path: Path) -> str:
    return sha256(path)


@cache
def _imports_of(path: Path, name: str) -> tuple[str, ...]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return tuple(_imported(path.read_text(encoding="utf-8"), package))


def _file_of(name: str) -> Path | None:
    """The file of a module of this package, or None for anything else: a function, a module of others."""
    first, *rest = name.split(".")
    if first != PACKAGE.name:
        return None
    base = PACKAGE.joinpath(*rest)
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _imported(source: str, package: str) -> Iterator[str]:
    """Dotted names that code imports: modules, and names of modules that may be modules themselves."""
    tree = ast.parse(source)
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
                aliases[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            for alias in node.names:
                yield from _meant(module, alias.name)
                aliases[alias.asname or alias.name] = f"{module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            yield from _meant(aliases[node.value.id], node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (named := _NAMED.fullmatch(node.value)):
            yield package + named[1] if named[1].startswith(".") else named[1]


def _meant(module: str, name: str) -> Iterator[str]:
    """The modules that `module.name` may be: one below it, or the one from which it is loaded when first used."""
    yield f"{module}.{name}"
    path = _file_of(module)
    if path is not None and path.name == "__init__.py" and (home := _homes(path).get(name)):
        yield home if home.startswith(PACKAGE.name) else f"{module}.{home}"


@cache
def _homes(path: Path) -> dict[str, str]:
    """The table `_HOME` of a package whose names are loaded when first used."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(at, ast.Name) and at.id == "_HOME" for at in node.targets):
            return ast.literal_eval(node.value)
    return {}
