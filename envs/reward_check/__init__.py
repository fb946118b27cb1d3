"""The parts of `check_reward_env`."""
