"""tar archives: members are read where they lie, and one kind is written."""
