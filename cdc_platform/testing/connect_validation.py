"""What the fake Connect group refuses before it takes a connector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Config = Mapping[str, str]


class RestRefusal(Exception):
    """What the REST API answers instead: an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.message = message


def check_config(
    name: str, config: Config, classes: Sequence[str], refuses: Callable[[str, Config], str | None]
) -> None:
    """Raises RestRefusal with Connect's own words."""
    if config.get("name", name) != name:
        raise RestRefusal(
            400,
            f"Connector name configuration ({config['name']}) doesn't match connector name in the URL ({name})",
        )
    kind = config.get("connector.class")
    if not kind:
        raise RestRefusal(400, f"Connector config {{name={name}}} contains no connector type")
    if not any(kind in _aliases(known) for known in classes):
        raise RestRefusal(400, f"Failed to find any class that implements Connector and which name matches {kind}")
    problems = []
    tasks = config.get("tasks.max", "1")
    if not tasks.isdigit() or int(tasks) < 1:
        problems.append(f"Invalid value {tasks} for configuration tasks.max: Not a number of type INT")
    found = refuses(name, config)
    if found is not None:
        problems.append(found)
    if problems:
        raise RestRefusal(
            400,
            f"Connector configuration is invalid and contains the following {len(problems)} error(s):\n"
            + "\n".join(problems),
        )


def _aliases(name: str) -> tuple[str, ...]:
    """A plugin's full name, its simple name, and that without `Connector` (PluginUtils)."""
    simple = name.rpartition(".")[2]
    return name, simple, simple.removesuffix("Connector")
