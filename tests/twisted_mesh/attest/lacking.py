"""A platform that needs what nobody has."""

from nothing_that_is_installed import Attestor  # type: ignore[import-not-found]

__all__ = ["Attestor"]
