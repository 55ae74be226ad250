"""JWT-SVIDs: claims signed by keys of their own, the JWKS that publishes those, and the validator of tokens."""
