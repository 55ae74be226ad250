"""OCSP: requests, answers, and what they are evidence of."""
