"""Step 4: a rollout batch becomes optimizer steps."""
