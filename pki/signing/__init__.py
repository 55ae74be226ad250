"""What a signer signs: recognised by its content, parsed whole, judged by a policy. What was signed is handed in."""
