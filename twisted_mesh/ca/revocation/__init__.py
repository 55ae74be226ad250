"""What the CA publishes of revocation: CRLs and OCSP answers."""
