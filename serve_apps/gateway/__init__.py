"""The gateway: OpenAI's API in front of every variant, routed by the table in the ledger."""
