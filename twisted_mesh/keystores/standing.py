"""How the key stores stand, for whoever asks how the CA is."""

from pki.codes import Code
from pki.errors import Problem
from twisted_mesh.keystores.stores import KeyStores

KEPT_IN_FILES = "all keys are in files"
#: What to do where the trouble itself does not say it apart.
DO_THAT = "do what that says; mesh-ctl ca keys shows where each key is"


def keys_standing(stores: KeyStores) -> tuple[str, Problem | None]:
    """How key stores stand, in words, and what is wrong with any."""
    if not stores.stores:
        return KEPT_IN_FILES, None
    names = ", ".join(store.uri for store in stores.stores.values())
    for uri, error in stores.problems.items():
        problem = error.problems[0]
        return f"keys are in {names}", Problem(
            Code.UNHEALTHY_KEYS,
            f"{uri} does not sign: {problem.detail}",
            problem.remedy or DO_THAT,
        )
    return f"keys are in {names}, and those sign", None
