"""``mesh-ctl``: the administrator's command."""
