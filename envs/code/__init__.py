"""Programming tasks."""
