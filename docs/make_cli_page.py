"""Writes docs/cli.md from the command line's own help: `uv run python docs/make_cli_page.py`."""

from __future__ import annotations

from pathlib import Path

import typer.main
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from prelabel.cli.app import app

PAGE = Path(__file__).with_name("cli.md")
ESCAPED = "\\|"
HEAD = """# Commands

```sh
prelabel COMMAND --help
```

[Exit codes](outputs.md#stop-a-run): 0 all done, 1 some task failed, 2 nothing ran, 130 you stopped it.
"""


def make_page() -> str:
    """Returns the page: for each command its help, its usage and a table of its arguments and options."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return "\n".join([HEAD, *(_section(name, command) for name, command in group.commands.items())])


def _section(name: str, command: TyperCommand) -> str:
    help_text = "\n".join(line.strip() for line in (command.help or "").splitlines())
    example = (command.epilog or "").removeprefix("Example: ")
    rows = [_row(param) for param in command.params if not getattr(param, "hidden", False)]
    table = "\n".join(["\n| | default | meaning |", "| --- | --- | --- |", *rows, ""]) if rows else ""
    return f"## {name}\n\n{help_text}\n\n```sh\n{example}\n```\n{table}"


def _row(param: TyperArgument | TyperOption) -> str:
    """Returns a row of the table: how the argument or option is written, its default, its meaning."""
    names = [*param.opts, *param.secondary_opts] if isinstance(param, TyperOption) else []
    written = " ".join([", ".join(names), param.metavar or ""]).strip()
    default = "required" if param.required else param.default or ""
    cells = [f"`{written}`", f"`{default}`" if default else "", param.help or ""]
    return f"| {' | '.join(cell.replace('|', ESCAPED) for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
