"""Mathematics: procedural tasks and tasks from rows."""
