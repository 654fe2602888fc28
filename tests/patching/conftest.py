from patching.patching_host import host, recipes, sets  # noqa: F401
