"""The command as scripts that run from a bare checkout, in any directory."""
