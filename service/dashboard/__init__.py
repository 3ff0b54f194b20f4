"""The views of the dashboard over index and ledger: figures, tables, facts."""
