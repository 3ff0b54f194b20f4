"""The `whence` command: one thin module per group of subcommands."""
