"""Writing record sets, as insightface lays them out and as im2rec does."""

from collections.abc import Iterable
from pathlib import Path

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.record_layout import MAX_EXACT
from arcface_cakd.files import write_text
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.recordio import IRHeader, MXIndexedRecordIO, pack
from arcface_cakd.recordio.block_digests import write_digests


def write_identity_records(out_dir: str | Path, identities: Iterable[Iterable[bytes]]) -> None:
    """Write ``train.rec``, its index, its digests and ``property``, holding one image at a time.

    Images are the keys 1 to n, identity by identity, with the identity's number as label. Keys
    n + 1 and up are the identities' headers, label [first key, last key + 1]. Key 0, label
    [n + 1, n + 1 + number of identities], is written last, as insightface's own RecBuilder does.

    Args:
        out_dir: folder; made if it is missing. Nothing appears in it unless all goes well.
        identities: identity i's encoded images, in order.

    Raises:
        DataError: no identities, one without images, or more images than the format can count.
    """
    out = Path(out_dir)
    ranges = []
    begin = 1
    with MXIndexedRecordIO(out / "train.idx", out / "train.rec", "w") as writer:
        for label, images in enumerate(identities):
            end = begin
            for encoded in images:
                writer.write_idx(end, pack(IRHeader(0, label, end, 0), encoded))
                end += 1
            if end == begin:
                raise DataError(f"{out}: identity {label} has no images: leave it out")
            ranges.append((begin, end))
            begin = end
        if not ranges:
            raise DataError(f"{out}: there are no identities to write")
        if begin + len(ranges) > MAX_EXACT:
            raise DataError(
                f"{out}: {begin - 1} images and {len(ranges)} identities are more than the "
                f"{MAX_EXACT} that the format counts exactly: split the set"
            )
        for key, extent in enumerate(ranges, start=begin):
            writer.write_idx(key, pack(IRHeader(2, extent, key, 0), b""))
        writer.write_idx(0, pack(IRHeader(2, (begin, begin + len(ranges)), 0, 0), b""))
    write_digests(out / "train.rec")
    write_text(out / "property", property_text(len(ranges)))


def write_flat_records(
    out_dir: str | Path, images: Iterable[tuple[bytes, int]], num_classes: int
) -> None:
    """Write ``train.rec``, its index, its digests and ``property`` in the order that is given.

    As im2rec does: images are the keys 0 to n - 1, and there is no other record.

    Args:
        out_dir: folder; made if it is missing.
        images: encoded images and their labels.
        num_classes: what ``property`` says, one more than the highest label.
    """
    out = Path(out_dir)
    with MXIndexedRecordIO(out / "train.idx", out / "train.rec", "w") as writer:
        for key, (encoded, label) in enumerate(images):
            writer.write_idx(key, pack(IRHeader(0, label, key, 0), encoded))
    write_digests(out / "train.rec")
    write_text(out / "property", property_text(num_classes))


def property_text(num_classes: int) -> str:
    """What ``property`` says of so many identities."""
    return f"{num_classes},{CROP_SIZE},{CROP_SIZE}\n"
