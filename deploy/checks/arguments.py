"""What a container's arguments tell `topb`."""

from checks.kustomize import Document


def command(container: Document) -> str | None:
    """The subcommand of `topb`: its first argument."""
    args = container.get("args", [])
    return args[0] if args else None


def option(container: Document, name: str) -> str | None:
    """The last value of an option, which is the one that counts."""
    return next(reversed(options(container, name)), None)


def options(container: Document, name: str) -> list[str]:
    """Every value given as `--name=value` or `--name value`."""
    args: list[str] = container.get("args", [])
    found = []
    for arg, after in zip(args, [*args[1:], ""], strict=True):
        if arg.startswith(f"{name}="):
            found.append(arg.partition("=")[2])
        elif arg == name:
            found.append(after)
    return found
