"""Cells that only assign literals: which names they set, and to what."""

import ast
import math


def assignments(source: str) -> dict[str, object] | None:
    """Names and values that a cell assigns at top level; None if it does anything but assign literals.

    Imports, comments and docstrings may stand beside; `float("nan")` and `float("inf")` count as literals.
    """
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return None
    found: dict[str, object] = {}
    for statement in statements:
        if isinstance(statement, (ast.Import, ast.ImportFrom, ast.Pass)) or _is_text(statement):
            continue
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets = [statement.target]
        else:
            return None
        if not all(isinstance(target, ast.Name) for target in targets):
            return None
        try:
            value = literal(statement.value)
        except ValueError:
            return None
        found |= {target.id: value for target in targets}
    return found


def assigned(source: str) -> list[str] | None:
    """Names that a cell of plain values assigns: literals and sums of them, no calls; None for any other cell."""
    try:
        statements = [one for one in ast.parse(source).body if not _is_text(one)]
    except SyntaxError:
        return None
    names = []
    for statement in statements:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            return None
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        if not all(isinstance(target, ast.Name) for target in targets) or not _is_constant(statement.value):
            return None
        names += [target.id for target in targets]
    return names or None


def _is_constant(node: ast.expr) -> bool:
    """Whether an expression is made of literals alone; `float("nan")` is one of them."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "float" and all(map(_is_constant, node.args))
    inside = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    return not isinstance(node, ast.Name | ast.Attribute | ast.Lambda) and all(map(_is_constant, inside))


def literal(node: ast.expr) -> object:
    """The value of a literal expression; ValueError if it is none."""
    match node:
        case ast.Constant(value=value) if not isinstance(value, (bytes, type(...))):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = literal(operand)
            if isinstance(value, (int, float)):
                return -value
        case ast.List(elts=items):
            return [literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(literal(item) for item in items)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {literal(key): literal(value) for key, value in zip(keys, values, strict=True)}
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str(text))], keywords=[]):
            value = float(text)
            if not math.isfinite(value):
                return value
    raise ValueError(f"{ast.unparse(node)} is not a literal.")


def is_plain(value: object) -> bool:
    """Whether a value could have been written as a literal."""
    if isinstance(value, (list, tuple)):
        return all(is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(is_plain(key) and is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str))


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
