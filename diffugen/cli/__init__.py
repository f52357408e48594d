"""The `diffugen` command, one file per subcommand."""
