"""Write docs/commands.md: what every command says of itself.

python docs/make_commands.py
"""

from pathlib import Path

import click

import mmgen.cli
import trainer.cli

PAGE = Path(__file__).parent / "commands.md"
PROGRAMS = {"mmgen": mmgen.cli.main, "mmtrain": trainer.cli.main}
WIDTH = 100

_HEAD = """# Every command

What `--help` says, made by `python docs/make_commands.py`; a test compares. Exit codes: 0 done,
1 could not finish, 2 bad input, 130 interrupted. An error is one line; `mmgen --traceback COMMAND`
and `mmtrain --traceback COMMAND` show where it comes from.
"""


def context_of(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    """Return the context in which a command says its help in lines of WIDTH columns."""
    return click.Context(
        command,
        parent,
        info_name=name,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        **command.context_settings,
    )


def page() -> str:
    """Return the whole page."""
    parts = [_HEAD]
    for program, group in PROGRAMS.items():
        outer = context_of(group, program, None)
        parts.append(f"\n## {program}\n\n```text\n{group.get_help(outer)}\n```\n")
        for name in group.list_commands(outer):
            command = group.commands[name]
            told = command.get_help(context_of(command, name, outer))
            parts.append(f"\n### {program} {name}\n\n```text\n{told}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
