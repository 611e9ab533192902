"""The imageport command: one file a group of subcommands."""
