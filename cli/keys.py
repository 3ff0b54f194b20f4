"""`whence keys`: make, list and revoke the API keys of a server.

    whence keys create --name alice --scope read --expires-days 90
    whence keys list
    whence keys revoke ID

A running server heeds what changed from its next request on.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.keys import Key

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)

_File = Annotated[Path, typer.Option("--file", envvar="WHENCE_KEYS_FILE", help="The file of keys.")]
_DEFAULT_FILE = Path("keys.json")
_AuditLog = Annotated[
    Path | None,
    typer.Option(envvar="WHENCE_AUDIT_LOG", help="File to which the change is added."),
]
_COMMAND_LINE = "command line"
_SCOPES = ("read", "write", "admin")


def _scopes(values: list[str]) -> list[str]:
    for value in values:
        if value not in _SCOPES:
            raise typer.BadParameter(f"{value!r} is none of {', '.join(_SCOPES)}")
    return values


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Whose it is, for people.")],
    scope: Annotated[
        list[str],
        typer.Option(help="read, write or admin; repeat for several.", callback=_scopes),
    ] = ["read"],  # noqa: B006 - typer copies it
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days until it expires; never by default.")
    ] = None,
    owner: Annotated[
        list[str] | None,
        typer.Option(help="It sees only documents of this owner; repeat for several."),
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="How often it may ask; any number by default.")
    ] = None,
    file: _File = _DEFAULT_FILE,
    audit_log: _AuditLog = None,
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    from service.audit import AuditLog
    from service.keys import create_key

    now = datetime.now(UTC)
    with AuditLog(audit_log).action(_COMMAND_LINE, f"create key {name} of {'+'.join(scope)}"):
        key, token = create_key(
            file,
            name=name,
            scopes=frozenset(scope),  # type: ignore[arg-type] # checked by the callback
            now=now,
            expires=None if expires_days is None else now + timedelta(days=expires_days),
            owners=tuple(owner) if owner else None,
            requests_per_minute=requests_per_minute,
        )
    typer.echo(f"The key {key.id} of {key.name} is in {file}. It is shown this once:", err=True)
    typer.echo(token)


@app.command("list")
def list_keys(
    file: _File = _DEFAULT_FILE,
    json: Annotated[bool, typer.Option("--json", help="As JSON, without the hashes.")] = False,
) -> None:
    """List the keys, the oldest first."""
    from service.keys import read_keys

    keys = read_keys(file)
    if json:
        for key in keys:
            typer.echo(key.model_dump_json(exclude={"sha256"}))
        return
    for key in keys:
        typer.echo(_line(key))


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The id, as `list` shows it.")],
    file: _File = _DEFAULT_FILE,
    audit_log: _AuditLog = None,
) -> None:
    """Make a key worthless, from the next request on."""
    from service.audit import AuditLog
    from service.keys import revoke_key

    with AuditLog(audit_log).action(_COMMAND_LINE, f"revoke key {key_id}"):
        key = revoke_key(file, key_id, now=datetime.now(UTC))
    typer.echo(f"The key {key.id} of {key.name} is revoked.")


def _line(key: "Key") -> str:
    parts = [
        key.id,
        f"{key.state(datetime.now(UTC)):<7}",
        "+".join(key.scopes),
        key.name,
        f"expires {key.expires:%Y-%m-%d}" if key.expires else "never expires",
        f"{key.requests_per_minute} a minute" if key.requests_per_minute else "any rate",
        f"owners {', '.join(key.owners)}" if key.owners else "all owners",
    ]
    return "  ".join(parts)
