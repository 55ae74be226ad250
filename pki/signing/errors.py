"""Why a signer does not sign: a rule by its name, what is wrong, what to do."""

from pki.codes import Code
from pki.errors import PkiError, Problem


class NotSignable(PkiError):
    """The data is nothing that a signer signs, or not written as it would be: no rule is even asked."""

    code = Code.NOT_SIGNABLE


class SigningRefused(PkiError):
    """A rule of the signer's policy says no."""

    code = Code.SIGNING_REFUSED

    def __init__(self, rule: str, detail: str, remedy: str = "") -> None:
        self.rule, self.detail, self.remedy = rule, detail, remedy
        super().__init__(f"{detail} (rule {rule}){f': {remedy}' if remedy else ''}")

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The one reason."""
        return (Problem(self.code, self.detail, self.remedy, self.rule),)
