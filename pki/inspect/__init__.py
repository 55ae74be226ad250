"""What is in certificates, requests, CRLs and OCSP responses, for people."""
