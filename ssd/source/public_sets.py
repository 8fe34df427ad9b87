"""Archives of the public data sets: mirrors, sizes, SHA-256 digests, and which files are unpacked.

The authors of COCO and Penn-Fudan publish no digests; those here, and the sizes, are recorded in two or
more public repositories. Zips also contain CRCs, which are checked during unpacking.
"""

from dataclasses import dataclass

from ssd.fetch import RemoteFile
from ssd.params import Source

VOC_FOLDERS = ("JPEGImages", "Annotations", "ImageSets/Main")


@dataclass(frozen=True)
class Archive:
    """A public archive.

    wanted: for a tar, ends of folder paths; for a zip, glob patterns of file paths. folder: the folder that a
    zip unpacks to, None for a tar; if `data.archives` contains that folder, it is used instead of the zip.
    num_unpacked: bytes of the wanted files; 0 means about the archive's own size, because JPEG and PNG are
    compressed already.
    """

    file: RemoteFile
    wanted: tuple[str, ...]
    folder: str | None = None
    num_unpacked: int = 0


def _voc(year: int, name: str, num_bytes: int, sha256: str) -> Archive:
    mirrors = (
        f"https://thor.robots.ox.ac.uk/pascal/VOC/voc{year}/",
        f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/",
        "https://data.pjreddie.com/files/",
    )
    file = RemoteFile(name, num_bytes, sha256, tuple(mirror + name for mirror in mirrors))
    return Archive(file, VOC_FOLDERS)


def _coco(
    path: str, num_bytes: int, sha256: str, folder: str, pattern: str, num_unpacked: int = 0
) -> Archive:
    # The bucket's name contains dots, so the https certificate does not cover it as a host name.
    mirrors = "https://s3.amazonaws.com/images.cocodataset.org/", "http://images.cocodataset.org/"
    urls = tuple(mirror + path for mirror in mirrors)
    return Archive(RemoteFile(path.split("/")[1], num_bytes, sha256, urls), (pattern,), folder, num_unpacked)


VOC2007_TRAINVAL = _voc(
    year=2007,
    name="VOCtrainval_06-Nov-2007.tar",
    num_bytes=460_032_000,
    sha256="7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
)
VOC2007_TEST = _voc(
    year=2007,
    name="VOCtest_06-Nov-2007.tar",
    num_bytes=451_020_800,
    sha256="6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
)
VOC2012_TRAINVAL = _voc(
    year=2012,
    name="VOCtrainval_11-May-2012.tar",
    num_bytes=1_999_639_040,
    sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
)
COCO_ANNOTATIONS = _coco(
    "annotations/annotations_trainval2017.zip",
    num_bytes=252_907_541,
    sha256="113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    folder="annotations",
    pattern="annotations/instances_*2017.json",
    num_unpacked=469_785_474 + 19_987_840,
)
COCO_VAL = _coco(
    "zips/val2017.zip",
    num_bytes=815_585_330,
    sha256="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    folder="val2017",
    pattern="val2017/*.jpg",
)
COCO_TRAIN = _coco(
    "zips/train2017.zip",
    num_bytes=19_336_861_798,
    sha256="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    folder="train2017",
    pattern="train2017/*.jpg",
)
PENN_FUDAN = Archive(
    RemoteFile(
        "PennFudanPed.zip",
        num_bytes=53_723_336,
        sha256="9095a9613c95586f1c7f2a327d454833d16e0f5e17e5f83d35027ffd315b48e2",
        urls=("https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip",),
    ),
    ("PennFudanPed/PNGImages/*.png", "PennFudanPed/PedMasks/*.png"),
    folder="PennFudanPed",
)

ARCHIVES: dict[Source, tuple[Archive, ...]] = {
    "voc2007": (VOC2007_TRAINVAL, VOC2007_TEST),
    "voc2012": (VOC2012_TRAINVAL,),
    "voc0712": (VOC2007_TRAINVAL, VOC2007_TEST, VOC2012_TRAINVAL),
    "coco": (COCO_ANNOTATIONS, COCO_VAL, COCO_TRAIN),
    "penn_fudan": (PENN_FUDAN,),
}
