"""`llm-trader config`: what the settings are, where they come from, whether they can be used.

The settings hold no secret, only the names of environment variables that do.
"""

from __future__ import annotations

import json as json_format
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from llm_trader.app.job import Job
from llm_trader.cli.options import AsJson, ConfigFile, with_job
from llm_trader.cli.output import Description, Result, line, present, table

if TYPE_CHECKING:
    from llm_trader.serving.admin import Reloaded
    from llm_trader.settings.values import CheckedSettings, SettingDifference, SettingValue

app = typer.Typer(
    no_args_is_help=True,
    help="Settings: show where each comes from, check files, compare two, reload a server's.",
)

Changed = Annotated[
    bool, Option("--changed", help="Show only settings that differ from their defaults.")
]
Files = Annotated[
    list[Path] | None,
    Argument(help="Files of settings; by default the file that a command here would read."),
]
First = Annotated[Path, Argument(help="File of settings.")]
Second = Annotated[
    Path | None,
    Argument(help="File to compare with; by default what a command here would use."),
]


@app.command()
def show(config: ConfigFile = None, changed: Changed = False, json: AsJson = False) -> None:
    """Show every setting with its value and where that comes from.

    Flags of a command override the environment, which overrides the file.
    """
    from llm_trader.settings.loading import read_settings
    from llm_trader.settings.values import setting_values

    read = read_settings(config, environ=os.environ)
    values = [v for v in setting_values(read) if not changed or v.value != v.default]
    shown = {"digest": read.settings.digest(), "settings": values}
    present(Result(shown, _describe_values(values, read.settings.digest())), json=json)


@app.command()
def check(files: Files = None, json: AsJson = False) -> None:
    """Check files of settings, each together with the environment; all mistakes show at once.

    Exit code 2 if the settings cannot be used, and 1 if this machine lacks what they name, such as
    the variable of a token.
    """
    from llm_trader.settings.values import check_settings

    checked = check_settings(files or [None], os.environ, datetime.now(UTC).date())
    failed = any(one.missing for one in checked)
    present(Result(checked, _describe_checked(checked), failed), json=json)


@app.command()
def diff(first: First, second: Second = None, json: AsJson = False) -> None:
    """Show the settings that differ between two files, or between a file and those used here.

    Two files are compared by themselves, without the environment.
    """
    from llm_trader.settings.loading import load_settings
    from llm_trader.settings.values import differences

    before = load_settings(first, environ={})
    after = load_settings(second, environ={} if second else os.environ)
    found = differences(before, after)
    described = _describe_differences(found, str(first), str(second or "used here"))
    present(Result(found, described), json=json)


@app.command("reload")
@with_job("host", "port", "auth_tokens_env", "tls_certificate")
def reload_settings(job: Job) -> Result:
    """Tell a running server to read its settings again, from the file and flags of its start.

    Shows what holds from now on, and what needs a restart. With a mistake anywhere the server keeps
    the settings it has, and all mistakes are shown. SIGHUP to the server does the same, with the
    log as its answer. Where keys are asked for, this needs one with the scope admin.
    """
    from llm_trader.app.queries import reload_server

    reloaded = reload_server(job)
    return Result(reloaded, _describe_reload(reloaded))


def _describe_reload(reloaded: Reloaded) -> Description:
    parts = (
        ("applied", reloaded.applied),
        ("the workers are replaced one after the other for", reloaded.restarting),
        ("needs a restart of the server", reloaded.needs_restart),
    )
    if not any(found for _, found in parts):
        yield line("no setting has changed")
    for title, found in parts:
        for change in found:
            before, after = _shown(change.before), _shown(change.after)
            yield line(f"{title}: {change.key} = {after}, before {before}")
    for path in reloaded.files:
        yield line(f"read again: {path}")


def _describe_values(values: list[SettingValue], digest: str) -> Description:
    rows = [(v.key, _shown(v.value), v.origin or "default") for v in values]
    if rows:
        yield table("", "setting", "value", "from", rows=rows, right_from=3)
    else:
        yield line("every setting has its default")
    yield line(f"digest {digest}")


def _describe_checked(checked: list[CheckedSettings]) -> Description:
    for one in checked:
        count = one.differ_from_default
        differing = "1 setting differs" if count == 1 else f"{count} settings differ"
        name = one.file or "no settings file"
        yield line(f"{name}: valid, {differing} from the defaults, digest {one.digest}")
        yield from (line(f"  {reason}") for reason in one.missing)


def _describe_differences(found: list[SettingDifference], first: str, second: str) -> Description:
    if not found:
        yield line("the settings are the same")
        return
    rows = [(d.key, _shown(d.first), _shown(d.second)) for d in found]
    yield table("", "setting", first, second, rows=rows, right_from=3)


def _shown(value: Any) -> str:
    return "none" if value is None else json_format.dumps(value)
