"""`my_task/MyTask-v0`. Importing this package registers the id."""

import gymnasium

gymnasium.register("my_task/MyTask-v0", f"{__name__}.env:MyTask", disable_env_checker=True)
