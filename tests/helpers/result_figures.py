"""The JSON of a protocol's result, as the report reads it."""


def check_intervals(figures: dict) -> None:
    """Each interval has the dotted name of a figure, around which it lies."""
    assert figures["intervals"]
    for name, interval in figures["intervals"].items():
        value = figures
        for part in name.split(".", 1):
            value = value[part]
        assert (interval is None) or interval["low"] <= value <= interval["high"]
