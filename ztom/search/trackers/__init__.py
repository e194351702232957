"""Where a search's trials are shown as well, beside the ledger: off unless they are named."""
