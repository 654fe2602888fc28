"""Two forms of URFM, as settings."""

# Everything learned on both sides: what the paper says of URFM, and no more.
LEARNED = {
    "lookup": "content",
    "shared_lookup": False,
    "fixed_values": False,
    "standardise": "channel",
    "prompt_tokens": "learned",
    "residual": False,
}
# Ours, the default.
OURS = {
    "lookup": "position",
    "shared_lookup": True,
    "fixed_values": True,
    "standardise": "place",
    "prompt_tokens": "none",
    "residual": True,
}
