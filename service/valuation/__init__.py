"""What documents and owners are worth, and what they are paid: from the ledger, no model."""
