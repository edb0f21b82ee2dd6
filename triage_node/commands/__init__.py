"""Commands that have a module of their own: each adds itself to the command line with `add`."""
