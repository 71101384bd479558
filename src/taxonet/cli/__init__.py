"""The command: one small module a verb."""
