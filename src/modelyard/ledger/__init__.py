"""The ledger: customers and their keys, what they may use and have used, and the journal."""
