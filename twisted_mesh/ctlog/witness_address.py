"""A witness as the log knows it: where it is asked, and the key that its cosignatures are by."""

from typing import Self

from attrs import frozen

from pki.ct.tree_head import WitnessKey
from pki.errors import PkiError
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.http.https_client import WebUrl


@frozen
class WitnessAddress:
    """``WitnessAddress.parse(str(x)) == x``."""

    url: WebUrl
    """Without a slash at its end."""
    key: WitnessKey
    pin: SpkiHash | None = None
    """The key of its TLS. None takes any: what it says is signed."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """``https://HOST:PORT#KEY`` or ``https://HOST:PORT#KEY,sha256/PIN``. Raises :class:`PkiError`."""
        url, _, rest = text.partition("#")
        key, comma, pin = rest.partition(",")
        try:
            return cls(
                WebUrl.parse(url.rstrip("/"), "--witness"),
                WitnessKey.parse(key),
                SpkiHash.parse(pin) if comma else None,
            )
        except PkiError as error:
            raise type(error)(
                f"--witness is https://HOST:PORT#KEY, with the key that mesh-witness prints: {error}"
            ) from None

    def __str__(self) -> str:
        pin = f",{self.pin}" if self.pin is not None else ""
        return f"{self.url}#{self.key}{pin}"
