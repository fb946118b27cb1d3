"""`sql/Shop-v0`: questions about a shop, answered in SQL. Importing this package registers the id."""

import gymnasium

gymnasium.register("sql/Shop-v0", f"{__name__}.env:ShopEnv", disable_env_checker=True)
