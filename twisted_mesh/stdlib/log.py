"""The log of programs that have no Twisted: the standard library's, by the name ``twisted_mesh.stdlib``."""

import logging

log = logging.getLogger("twisted_mesh.stdlib")
