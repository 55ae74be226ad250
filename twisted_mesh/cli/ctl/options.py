"""Options that several commands of ``mesh-ctl`` share, and the questions before what cannot be undone."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import fields, frozen

from twisted_mesh.cli.program import Unusable

if TYPE_CHECKING:
    from pki.keys import KeyAlgorithm


@frozen
class Reach:
    """How the CA is reached: the options as they were typed."""

    ca_url: str | None
    ca_file: str | None
    ca_fingerprint: str | None
    ca_user: str | None
    svid: str | None
    state_dir: str | None
    trust_domain: str
    timeout: str

    @property
    def state(self) -> Path:
        """The state directory."""
        return state_path(self.state_dir)

    @property
    def is_local(self) -> bool:
        """Whether the CA is the one of the state directory."""
        return self.ca_url is None

    @property
    def own_state(self) -> Path:
        """A state directory of the caller's own, to remember things in: that one, else the user's."""
        import os

        from twisted_mesh.state.environment import BadEnvironment, user_state_dir

        try:
            if self.state.stat().st_uid == os.geteuid():
                return self.state
        except OSError:
            pass
        try:
            return user_state_dir()
        except BadEnvironment:  # nowhere: what cannot be kept is said where that is tried
            return self.state


def state_path(state_dir: str | None) -> Path:
    """What ``--state-dir`` says, else where state is by default."""
    from twisted_mesh.state.environment import default_state_dir

    return Path(state_dir) if state_dir else default_state_dir()


state_dir_option = click.option(
    "--state-dir", help="Where state lives.  [default: $MESH_STATE_DIR, else the user's]"
)
format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Text for people, or JSON for programs.",
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
#: Why a certificate may be revoked (RFC 5280).
REASONS = (
    "unspecified",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "privilegeWithdrawn",
)
reason_option = click.option(
    "--reason", metavar="TEXT", default="", help="Why: it goes into the CA's audit log."
)
dns_option = click.option(
    "--dns", "dns_names", multiple=True, metavar="NAME", help="A host name besides. Repeatable."
)
ip_option = click.option(
    "--ip", "ip_addresses", multiple=True, metavar="A", help="An IP address besides. Repeatable."
)
federates_option = click.option(
    "--federates-with",
    multiple=True,
    metavar="TD",
    help="Another trust domain, whose bundle whoever has this is given. Repeatable.",
)

_REACHING = (
    click.option(
        "--ca-url",
        help="unix:PATH, http://localhost:PORT or https://HOST:PORT.  [default: the state's socket]",
    ),
    click.option(
        "--ca-file", help="The root of a CA at https://.  [default: svid_bundle.pem of --svid]"
    ),
    click.option(
        "--ca-fingerprint",
        metavar="sha256:HEX",
        help="In its place the root's fingerprint, as the CA prints it at its start.",
    ),
    click.option(
        "--ca-user",
        metavar="USER",
        help="Whose the CA at the socket is, if not root's, ours, or its directory's owner.",
    ),
    click.option(
        "--svid",
        metavar="DIR",
        help="An administrator's identity for https://, as mesh-client --export writes it.",
    ),
    state_dir_option,
    click.option(
        "--trust-domain",
        default="mesh.local",
        show_default=True,
        help="Of a CA at https:// that is asked without --svid.",
    ),
    click.option(
        "--timeout", default="10s", show_default=True, help="How long an answer may take."
    ),
)


def reaching(command: Callable[..., int]) -> Callable[..., int]:
    """Give ``command`` the options that lead to a CA, as one argument ``reach``."""

    @functools.wraps(command)
    def with_reach(**options: Any) -> int:
        reach = Reach(**{field.name: options.pop(field.name) for field in fields(Reach)})
        return command(reach=reach, **options)

    for option in reversed(_REACHING):
        with_reach = option(with_reach)
    return with_reach


def key_algorithm(text: str) -> "KeyAlgorithm":
    """What ``--algorithm`` says. Raises :class:`Unusable`."""
    from pki.keys import KeyAlgorithm, UnknownAlgorithm

    try:
        return KeyAlgorithm.parse(text, "--algorithm")
    except UnknownAlgorithm as error:
        raise Unusable(str(error)) from None


def must_be_answered(yes: bool) -> None:
    """Before anything is done: that :func:`confirmed` will be able to ask."""
    if not yes and not (sys.stdin is not None and sys.stdin.isatty()):
        raise Unusable("there is no terminal to ask for confirmation at: add --yes")


def confirmed(question: str, *, yes: bool) -> bool:
    """Whether the user says so. Raises :class:`click.Abort` on Ctrl-C."""
    if yes:
        return True
    with _interruptible():
        return click.confirm(question, err=True)


def confirmed_by_number(question: str, number: int, *, yes: bool) -> bool:
    """Whether the user types that number: for what is too much to be done by one key. Raises as above."""
    if yes:
        return True
    with _interruptible():
        text = click.prompt(f"{question} [{number}]", err=True, default="", show_default=False)
    return str(text).replace(",", "").strip() == str(number)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is an answer also while the reactor has the signal."""
    import signal

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def output_file(name: str, *, overwrite: bool = True) -> Path:
    """A path that can be written whole: not that of a device or a directory."""
    path = Path(name)
    if path.is_file() and not overwrite:
        raise Unusable(f"{name} is there already: name another file, or say --overwrite")
    if path.exists() and not path.is_file():
        raise Unusable(f"{name} is not a file: name one that is, or a new one")
    return path
