"""The ``.idx`` file is read in blocks; what comes out does not hang on where they end."""

import random
import tracemalloc

import numpy as np
import pytest

from arcface_cakd.recordio import RecordIOError, index

# Which keys, of how many lines: without gaps from the first line on, with the first key last as
# insightface writes it, with gaps here and there, backwards, from far below zero.
ORDERS = {
    "gapless": lambda n, rng: list(range(n)),
    "from five on": lambda n, rng: list(range(5, 5 + n)),
    "first key last": lambda n, rng: [*range(1, n), 0],
    "a gap": lambda n, rng: [key + (key >= n // 2) for key in range(n)],
    "gaps": lambda n, rng: sorted(rng.sample(range(-n, 3 * n), n)),
    "any order": lambda n, rng: rng.sample(range(-n, 3 * n), n),
    "backwards": lambda n, rng: list(range(n, 0, -1)),
}


def written(folder, keys, rng, ending="\n"):
    offsets = [i * 4096 + rng.randrange(4096) for i in range(len(keys))]
    path = folder / "a.idx"
    lines = [f"{key}\t{offset}" for key, offset in zip(keys, offsets, strict=True)]
    path.write_bytes(ending.join(lines).encode() + b"\n" * rng.randrange(2))
    return path, dict(zip(keys, offsets, strict=True))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", [16, 64, 1000, 1 << 18])
def test_keys_and_offsets_are_those_of_the_lines(tmp_path, monkeypatch, order, block):
    monkeypatch.setattr(index, "_BLOCK", block)
    for seed in range(4):
        rng = random.Random(seed)
        count = rng.choice((1, 2, 3, 40, 301))
        path, lines = written(tmp_path, ORDERS[order](count, rng), rng, rng.choice(("\n", "\r\n")))
        found = index.read_index(path)
        assert list(found) == list(lines)
        assert dict(found) == lines
        assert found.sorted_keys.tolist() == sorted(lines)
        assert found.sorted_keys.dtype == found.offsets.dtype == np.int64
        assert found.offsets.tolist() == [lines[key] for key in sorted(lines)]
        assert index.read_index(path, str) == {str(key): value for key, value in lines.items()}


@pytest.mark.parametrize("block", [16, 64, 1 << 18])
def test_damage_is_found_in_any_block(tmp_path, monkeypatch, block):
    monkeypatch.setattr(index, "_BLOCK", block)
    rng = random.Random(block)
    path, _ = written(tmp_path, list(range(200)), rng)
    whole = [line + b"\n" for line in path.read_bytes().splitlines()]
    for place in (0, 7, 133, 199):
        damaged = [*whole]
        damaged[place] = b"7 and more\n"
        path.write_bytes(b"".join(damaged))
        with pytest.raises(RecordIOError, match=r"not a line of .* b'7 and more'") as caught:
            index.read_index(path)
        assert caught.value.offset == sum(map(len, damaged[:place]))
        path.write_bytes(b"".join([*whole[: place + 1], *whole[place:]]))
        with pytest.raises(RecordIOError, match="the key occurs twice") as caught:
            index.read_index(path)
        assert caught.value.key == place


@pytest.mark.parametrize("key_type", [int, str])
def test_a_file_without_lines_is_no_index(tmp_path, monkeypatch, key_type):
    """It would be joined to itself block by block: a file of zeros for minutes."""
    monkeypatch.setattr(index, "_BLOCK", 64)
    path = tmp_path / "a.idx"
    path.write_bytes(b"0\t0\n" + bytes(10_000))
    with pytest.raises(RecordIOError, match="not a line of 'key<tab>offset'") as caught:
        index.read_index(path, key_type)
    assert caught.value.offset == 4


def test_an_index_takes_its_offsets_memory_while_it_is_read(tmp_path):
    count = 400_000
    path = tmp_path / "a.idx"
    path.write_text("".join(f"{key}\t{key * 4096}\n" for key in range(count)))
    tracemalloc.start()
    try:
        found = index.read_index(path)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == count
    assert kept < 8 * count + 100_000
    assert most < 3 * 8 * count  # where memory grows, some count it before and after
