"""What an epoch draws for an image, by Python integers: SplitMix64 over (context, key)."""

_MASK = 2**64 - 1


def _mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _MASK
    return z ^ z >> 31


def draw(key: int, *context: int) -> int:
    """64 bits that hang on the key and on the numbers of the context, in their order."""
    state = 0
    for number in context:
        state = _mix(state ^ number & _MASK)
    return _mix((state + key * 0x9E3779B97F4A7C15) & _MASK)
