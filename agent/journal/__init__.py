"""The agent's durable memory: inbox, jobs, receipts, intents, results. One SQLite file, one writer thread."""
