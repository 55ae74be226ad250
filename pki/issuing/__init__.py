"""Certificates in the making: requests, profiles, drafts, lints, signatures."""
