"""Step 3: groups become a rollout batch."""
