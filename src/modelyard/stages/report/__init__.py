"""The report: what the audit found, as sentences and as a page for people."""
