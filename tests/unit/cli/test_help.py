"""What ``--help`` says, of every command there is."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from command_line import every_command, ztom, ztom_process

from tune_search.__main__ import argument_parser

COMMANDS = dict(every_command())
#: These print nothing that a script would want; groups print nothing at all.
WITHOUT_JSON = {"login", "demo", "gate render", "admin rotate-key", "data label"}
#: With these begin fragments that say nothing by themselves ("Of the project.").
NO_BEGINNING = {"Of", "The", "For", "That", "Its", "What", "Whose", "How", "Only", "Where", "It"}
#: Help of two words is enough where one of them says what the value is.
UNITS = re.compile(
    r"Tokens|percent|seconds|GiB|File or|Folder|YAML|CSV|[Ii]d of|Address|E-mail|Name"
)


def words(text: str) -> str:
    """Help without the frames and line breaks that a terminal's width puts into it."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def examples_of(command: Any) -> list[str]:
    """The lines of a command's example, without the prompt and without what a shell redirects."""
    lines = (command.epilog or "").replace("\\[", "[").splitlines()[1:]
    return [line.removeprefix("$ ").partition(" > ")[0] for line in lines]


def test_the_commands_are_what_they_were() -> None:
    assert {name for name, command in COMMANDS.items() if not hasattr(command, "commands")} == {
        *("search", "demo", "blend", "inspect", "verify", "eval", "serve", "log", "up", "login"),
        *("deploy", "promote", "rollback", "status", "apply", "gate render"),
        *("release list", "release watch", "release tell"),
        *("audit verify", "audit sign", "audit show", "admin create", "admin rotate-key"),
        *("project list", "project create", "project add", "project download"),
        *("suite new", "suite examples", "suite from-csv", "suite lock", "suite check"),
        *("suite diff", "data check", "doctor", "chain", "convert", "plan", "push"),
        *("data add", "data version", "data show", "data diff", "data export", "data label"),
        *("drift replay", "drift acted", "drift plan"),
        *("cluster start", "cluster join", "cluster settings", "submit", "usage"),
        *("logout", "whoami", "limits", "feedback", "release show"),
        *("project change", "project delete", "project remove", "project data"),
        *("user list", "user add", "user change", "user remove"),
        *("user invite", "user invitations", "user uninvite"),
        *("member list", "member add", "member change", "member remove"),
        *("key list", "key create", "key revoke"),
        *("searches list", "searches show", "searches events", "searches cancel"),
        *("searches resume", "searches result", "project edit", "project metatune"),
        *("analysis static", "analysis inference", "analysis sensitivity"),
        *("endpoint list", "endpoint show", "endpoint traffic", "endpoint remove"),
        *("endpoint remove-rule", "deployment list", "deployment show", "deployment cancel"),
        *("verdict record", "verdict list", "verdict show"),
        *("signing-key create", "signing-key show", "signing-key register"),
        *("signing-key list", "signing-key revoke"),
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    short = ztom(*name.split(), "-h")
    assert (short.returncode, short.stderr) == (0, "")
    assert ztom(*name.split(), "--help").stdout == short.stdout
    text = words(short.stdout)
    assert text.startswith(f"Usage: {f'ztom {name}'.strip()} ")
    assert len(words(COMMANDS[name].help).split()) > 2
    assert re.search(r"Examples?: \$ ztom", text)
    for example in examples_of(COMMANDS[name]):
        assert example in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_can_be_typed(name: str) -> None:
    assert examples_of(COMMANDS[name])
    for line in examples_of(COMMANDS[name]):
        program, *arguments = shlex.split(line)
        assert program == "ztom"
        assert line.startswith(f"ztom {name}")
        parse(arguments)


def parse(arguments: list[str]) -> None:
    """Read arguments as the command would, and run nothing.

    Raises:
        Exception: An argument is not what the command takes.
    """
    command: Any = COMMANDS[""]
    path: list[str] = []
    while arguments and arguments[0] in getattr(command, "commands", {}):
        path.append(arguments.pop(0))
        command = COMMANDS[" ".join(path)]
    command.make_context("ztom", arguments)


def test_an_example_that_cannot_be_typed_is_noticed() -> None:
    parse(["blend", "chain.yaml", "--factors", "0.1", "--output", "v"])
    for wrong in (["blend", "chain.yaml", "--output", "v"], ["search", "--sett", "x"]):
        with pytest.raises(Exception, match=r"(?i)missing|no such option"):
            parse(wrong)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_says_what_it_does(name: str) -> None:
    for parameter in COMMANDS[name].params:
        help_text = parameter.help or ""
        assert len(help_text.split()) > 2 or UNITS.search(help_text), parameter.name
        assert help_text[0].isupper(), parameter.name
        first = help_text.split()[0]
        assert first not in NO_BEGINNING, f"{parameter.name}: {help_text}"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name])
def test_what_a_script_would_want_is_there_as_json(name: str) -> None:
    command = COMMANDS[name]
    if hasattr(command, "commands") and name != "gate":
        return
    has_json = any("--json" in parameter.opts for parameter in command.params)
    assert has_json == (name not in WITHOUT_JSON)


def test_commands_stand_under_headings() -> None:
    text = ztom("-h").stdout
    headings = re.findall(r"╭─ ([A-Z][\w ]+?) ─", text)
    assert headings == [
        *("Options", "Search and write", "Evaluate and decide", "Serve and release", "Records"),
        "The server and its projects",
    ]
    for name in (name for name in COMMANDS if name and " " not in name):
        assert re.search(rf"│ {name} ", text), name


def test_a_group_alone_prints_its_help() -> None:
    for name in ("", "suite", "audit", "release", "project", "admin"):
        alone = ztom(*name.split())
        assert (alone.returncode, alone.stderr) == (3, "")
        assert alone.stdout.strip() == ztom(*name.split(), "-h").stdout.strip()


def test_python_runs_the_package() -> None:
    done = ztom_process("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"ztom \d+\.\d+.*\n", done.stdout)


def test_a_shell_can_complete_commands() -> None:
    shown = ztom_process("--show-completion", "bash", environment=COMPLETION_OF_A_NAMED_SHELL)
    assert shown.returncode == 0, shown.stderr
    assert "_ZTOM_COMPLETE=complete_bash" in shown.stdout
    completed = ztom_process(
        environment={
            "_ZTOM_COMPLETE": "complete_bash",
            "COMP_WORDS": "ztom re",
            "COMP_CWORD": "1",
        }
    )
    assert completed.stdout.split() == ["release"]


#: Typer asks the process above which shell it is, except in its own tests.
COMPLETION_OF_A_NAMED_SHELL = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}


def test_a_ray_job_has_the_options_of_a_search_on_this_machine() -> None:
    ours = {opt for p in COMMANDS["search"].params for opt in p.opts if p.name != "config"}
    jobs = {
        opt for action in argument_parser()._actions for opt in action.option_strings if opt != "-h"
    }
    assert jobs - {"--help"} == ours - {"--project", "--server", "--json"}
