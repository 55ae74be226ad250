"""The certificate authority as a service: keys on disk, issuance, the API."""
