"""What deploying, traffic and declared endpoints mean: plain values and the ledger, no HTTP."""
