"""Decides which files are videos and images: by their suffix or, if that is unknown, by their first bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from prelabel.errors import ReadError

MediaKind = Literal["video", "images"]

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .jfi .jif .png .bmp .dib .webp .tif .tiff .gif .apng .avif .jp2 .j2k .jpx .jpf"
    " .ppm .pgm .pbm .pnm .pcx .tga .qoi .sgi".split()
)
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .qt .3gp .3g2 .f4v .mkv .webm .avi .divx .asf .wmv .flv .ts .mts .m2ts .m2t .tp .trp .mpg .mpeg"
    " .mpe .mpv .m1v .m2v .m2p .mp2v .mpv2 .vob .evo .mod .tod .dv .mxf .gxf .dav .ogv .ogm .ogx .rm .rmvb"
    " .rv .nut .ivf .y4m .mjpg .mjpeg .wtv .mk3d .h264 .264 .avc .h265 .265 .hevc .obu".split()
)
UNREADABLE_SUFFIXES = frozenset(
    ".heic .heif .dng .cr2 .cr3 .nef .arw .raf .orf .rw2 .psd .exr .dcm .braw .r3d .insp"
    " .jxl .ico .svg .yuv .m3u8 .mpd".split()
)
"""Suffixes of images and videos that no reader can decode."""

NO_MEDIA_SUFFIXES = frozenset(
    ".txt .json .xml .csv .tsv .yaml .yml .toml .ini .cfg .md .html .pdf .log .srt .vtt .ass .zip .gz .tar .7z .py"
    " .ipynb .db .parquet .npy .npz .pt .pth .onnx .thm .lrf"
    " .mp3 .m4a .m4b .aac .oga .opus .flac .wav .mka .wma".split()
)
"""Suffixes of files that are never opened to check their kind. A data set may have as many of them as images."""

HEAD_BYTES = 3 * 192
"""Length of three packets of a transport stream; a packet has 188 bytes, or 192 with a time code."""

_IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\x00", b"MM\x00*")
_VIDEO_STARTS = (
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x06\x0e\x2b\x34",  # MXF
    b"DHAV",  # recorders of Dahua, .dav
    b"\xb7\xd8\x00\x20\x37\x49\xda\x11",  # recordings of Windows, .wtv
    b"\x00\x00\x01\xb3",  # MPEG-1 and MPEG-2 without a container
    b".RMF",  # RealMedia
    b"DKIF",  # IVF
    b"nut/multimedia container",
    b"YUV4MPEG2",
)
# Audio, archives (also office documents), databases.
_OTHER_STARTS = (b"OggS", b"RIFF", b"ID3", b"fLaC", b"PK\3\4", b"\x1f\x8b", b"SQLite format 3")
_OGG_VIDEO = (b"\x80theora", b"OVP80", b"BBCD", b"\x01video")  # Theora, VP8, Dirac, OGM; audio has the same suffix
_STILL_BRANDS = (b"avif", b"avis")
_OTHER_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"M4A ", b"M4B ", b"crx ")


def media_kind(path: Path) -> MediaKind | None:
    """Returns whether a file is a video or an image; None if no reader can decode it.

    An animated GIF or PNG counts as an image here. `kind_to_read` distinguishes them when a task is opened.

    Args:
        path: of a file. It is opened only if its suffix is unknown.
    """
    suffix = path.suffix.lower()
    kind = suffix_kind(suffix)
    if kind is not None or suffix in NO_MEDIA_SUFFIXES or suffix in UNREADABLE_SUFFIXES:
        return kind
    return kind_of_bytes(_read_head(path))


def is_unknown(path: Path) -> bool:
    """Returns whether neither the suffix nor the first bytes of a file say what it is; text is known."""
    if path.suffix.lower() in NO_MEDIA_SUFFIXES | UNREADABLE_SUFFIXES:
        return False
    head = _read_head(path)
    return b"\0" in head and not head.startswith(_OTHER_STARTS)


def suffix_kind(suffix: str) -> MediaKind | None:
    """Returns the kind of the files with a suffix; None if the suffix does not say it.

    >>> suffix_kind(".MP4"), suffix_kind(".jpg"), suffix_kind(".0001")
    ('video', 'images', None)
    """
    suffix = suffix.lower()
    return "images" if suffix in IMAGE_SUFFIXES else "video" if suffix in VIDEO_SUFFIXES else None


def kind_of_bytes(head: bytes) -> MediaKind | None:
    r"""Returns the kind of a file that starts with these bytes; None if it is neither a video nor an image.

    >>> kind_of_bytes(b"\x00\x00\x00\x18ftypmp42"), kind_of_bytes(b"\xff\xd8\xff\xe0"), kind_of_bytes(b"notes")
    ('video', 'images', None)
    """
    if head.startswith(_IMAGE_STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "images"
    if head.startswith(_VIDEO_STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "video"
    if head[:4] == b"OggS":
        return "video" if any(codec in head for codec in _OGG_VIDEO) else None
    if head[4:8] == b"ftyp":  # ISO 14496-12; the brand says which of the many formats on top of it this is
        brand = head[8:12]
        return None if brand in _OTHER_BRANDS else "images" if brand in _STILL_BRANDS else "video"
    if head[4:8] in (b"moov", b"mdat", b"wide"):  # old QuickTime files have no `ftyp`
        return "video"
    # Every packet of a transport stream starts with 0x47.
    is_stream = any(head[at : at + 2 * size + 1 : size] == b"GGG" for at, size in ((0, 188), (4, 192)))
    return "video" if is_stream else None


# These classes are used in place of `Image.open`, because ultralytics 8.4 replaces that with a function that tries to
# install `pi-heif` at each damaged image.
_ANIMATIONS: dict[bytes, type[ImageFile]] = {b"GIF8": GifImageFile, b"\x89PNG": PngImageFile}
_TIFF = (b"II*\x00", b"MM\x00*")
_NEW_SUBFILE_TYPE = 254
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError)
"""What Pillow raises for a damaged image. The reader then reports the damage."""


def kind_to_read(path: Path) -> MediaKind:
    """Returns how to read a file: as a video or as an image. Its content decides, whatever its suffix.

    A GIF or PNG with several frames is read as a video.

    Raises:
        ReadError: it holds images that no reader would show, so that it would look whole with some of them missing.
    """
    head = _read_head(path)
    if kind_of_bytes(head) == "video" or (head[:4] in _ANIMATIONS and _is_animated(path)):
        return "video"
    is_animated_webp = head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(int.from_bytes(head[20:21]) & 2)
    if is_animated_webp or head[4:12] == b"ftypavis":
        raise ReadError(
            f"{path.name}: is an animation, and no reader shows more than its first frame: convert it to MP4"
        )
    if head[:4] in _TIFF and (num_pages := _num_pages(path)) > 1:
        raise ReadError(f"{path.name}: holds {num_pages} images, and no reader shows more than the first: split it")
    return "images" if media_kind(path) == "images" else "video"


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:  # the file is gone, or this user may not read it
        return b""


def _is_animated(path: Path) -> bool:
    try:
        with path.open("rb") as file, _ANIMATIONS[file.read(4)](path) as image:
            return bool(getattr(image, "is_animated", False))
    except _DAMAGE:
        return False


def _num_pages(path: Path) -> int:
    """Returns how many images a TIFF holds, without those that are a smaller version of another (TIFF 6.0, 254)."""
    num_pages = 0
    try:
        with TiffImageFile(path) as image:
            for page in range(image.n_frames):
                image.seek(page)
                num_pages += not int(image.tag_v2.get(_NEW_SUBFILE_TYPE, 0)) & 1
    except _DAMAGE:
        return 0
    return num_pages
