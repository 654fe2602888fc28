from helpers.patch_hosts import host, recipes, sets  # noqa: F401
