"""The command line: flags, and one function per thing it can do."""
