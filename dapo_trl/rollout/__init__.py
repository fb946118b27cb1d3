"""Step 2b: a prompt becomes judged completions."""
