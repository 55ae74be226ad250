"""For the conformance suite: a token of a configured issuer."""

from contextlib import ExitStack

from tests.twisted_mesh.attest.cases import Case
from tests.twisted_mesh.attest.token_cases import token_case


def make(stack: ExitStack) -> Case:
    return Case(*token_case("oidc"))
