"""What the relay keeps: one interface, a memory reference and SQLite."""
