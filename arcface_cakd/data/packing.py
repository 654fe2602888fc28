"""Writing record sets as insightface lays them out."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.folder import identity_folders
from arcface_cakd.data.images import decode_crop
from arcface_cakd.data.record_layout import MAX_EXACT
from arcface_cakd.files import write_text
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.progress import track
from arcface_cakd.recordio import IRHeader, MXIndexedRecordIO, codec, pack
from arcface_cakd.recordio.orientation import jpeg_orientation

LABELS_FILE = "labels.tsv"


def write_identity_records(out_dir: str | Path, identities: Iterable[Iterable[bytes]]) -> None:
    """Write ``train.rec``, ``train.idx`` and ``property``, holding one image at a time.

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
    write_text(out / "property", f"{len(ranges)},{CROP_SIZE},{CROP_SIZE}\n")


def check_vacant(out: str | Path, force: bool) -> None:
    """Refuse to write a data set over another.

    Raises:
        DataError: there is one, and ``force`` is false.
    """
    there = [name for name in ("train.rec", "train.idx") if (Path(out) / name).exists()]
    if there and not force:
        raise DataError(
            f"{Path(out) / there[0]}: a data set is there: choose another folder, or replace it "
            "with --force"
        )


def write_labels(out: str | Path, names: Sequence[str], heading: str) -> None:
    """Write ``labels.tsv``: what stood for each label before.

    Args:
        out: folder of the data set.
        names: of label 0, 1 and so on.
        heading: what they are.
    """
    rows = "".join(f"{label}\t{name}\n" for label, name in enumerate(names))
    write_text(Path(out) / LABELS_FILE, f"label\t{heading}\n{rows}")


def pack_folder(folder: str | Path, out: str | Path) -> tuple[int, int]:
    """Pack a folder of one folder per identity into a record set.

    JPEG files go in byte for byte, save those that EXIF data turns. They, and other formats, which
    are slow to decode, become JPEG of quality 95, as insightface's own tools make them. Every
    image is decoded once, to be sure of it.

    Returns:
        how many images and identities there were.

    Raises:
        DataError: as ``identity_folders``, and for a file that is no 112 x 112 image.
    """
    found = identity_folders(folder)
    found.warn_of_left_out()
    identities = found.identities
    count = sum(len(paths) for _, paths in identities)
    tracked = track(
        (path for _, paths in identities for path in paths), "packing", count, unit="images"
    )

    def images(number: int) -> Iterator[bytes]:
        for _ in range(number):
            yield _as_jpeg(next(tracked))

    write_identity_records(out, (images(len(paths)) for _, paths in identities))
    return count, len(identities)


def _as_jpeg(path: Path) -> bytes:
    try:
        encoded = path.read_bytes()
        pixels = decode_crop(encoded)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    # Turned by EXIF data alone, a JPEG would lie on its side for readers that do not look at it.
    as_it_is = codec.is_jpeg(encoded) and jpeg_orientation(encoded) == 1
    return encoded if as_it_is else codec.encode(pixels, 95)
