"""What an endpoint hears of revocation, from its CA and from others."""
