"""What the processes of one machine are given: SVIDs, bundles and tokens, each to whom an entry buys them."""
