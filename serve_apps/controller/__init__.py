"""The controller: makes what runs what the ledger says, and moves releases along."""
