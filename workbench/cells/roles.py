"""What each parameter is for. Optimiser groups come from these roles, never from parameter names."""

from torch import nn

ROLES = ("input", "projection", "core", "memory", "persistent", "norm", "head")


def tag(role: str, module: nn.Module) -> nn.Module:
    """Give a module, and all below it that have none of their own, a role; return the module."""
    if role not in ROLES:
        raise ValueError(f"role {role!r} is unknown; choose one of {', '.join(ROLES)}.")
    module.role = role
    return module


def parameter_roles(model: nn.Module) -> dict[str, str]:
    """Return the role of each parameter, by name: that of the nearest module above it which has one.

    Raises:
        ValueError: a parameter has no role.
    """
    roles: dict[str, str] = {}

    def walk(module: nn.Module, path: str, role: str | None) -> None:
        role = getattr(module, "role", role)
        for name, _ in module.named_parameters(recurse=False):
            if role is None:
                raise ValueError(f"parameter {path + name!r} has no role; wrap its module in tag(role, module).")
            roles[path + name] = role
        for name, child in module.named_children():
            walk(child, f"{path}{name}.", role)

    walk(model, "", None)
    return roles
