"""Archives: what is read of them, and what makes the whole archive unusable."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from toy_checkpoints import write_checkpoint

from ztom.checkpoints.checkpoint import open_checkpoint
from ztom.checkpoints.storage import open_source
from ztom.errors import ArchiveError, ContentChangedError, StorageError, ZtomError
from ztom.settings import Settings

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        allowed_roots=(str(tmp_path), "memory://"),
        cache_dir=tmp_path / "cache",
        max_archive_bytes=10**6,
        max_archive_members=50,
    )


@pytest.fixture(params=[".tar", ".tar.gz", ".tgz"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pack(tmp_path: Path, suffix: str) -> Callable[..., str]:
    """Writes an archive from members ``(name, content)`` or `tarfile.TarInfo`."""

    def write(*members: tuple[str, bytes] | tarfile.TarInfo, kind: int = tarfile.PAX_FORMAT) -> str:
        path = tmp_path / f"archive{suffix}"
        with tarfile.open(path, "w" if suffix == ".tar" else "w:gz", format=kind) as archive:
            for member in members:
                if isinstance(member, tarfile.TarInfo):
                    archive.addfile(member)
                else:
                    info = tarfile.TarInfo(member[0])
                    info.size = len(member[1])
                    archive.addfile(info, io.BytesIO(member[1]))
        return str(path)

    return write


def special(name: str, kind: bytes, *, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    info.mode = mode
    return info


@pytest.mark.parametrize("kind", FORMATS, ids=["ustar", "gnu", "pax"])
@pytest.mark.parametrize("top", ["", "./", "checkpoint/", "./a b/"])
def test_a_packed_checkpoint_is_the_checkpoint(
    kind: int, top: str, tmp_path: Path, settings: Settings, pack: Callable[..., str]
) -> None:
    folder = write_checkpoint(tmp_path / "folder", shards=2)
    members = [
        (top + path.name, path.read_bytes()) for path in sorted(folder.iterdir(), reverse=True)
    ]
    extra = [(f"{top}onnx/{'d' * 60}/{'x' * 60}.onnx", b"1"), (f"{top}.cache/y", b"2")]
    reference = pack(*extra, *members, special(f"{top}empty/", tarfile.DIRTYPE), kind=kind)
    packed = open_checkpoint(reference, settings=settings)
    plain = open_checkpoint(str(folder), settings=settings)
    assert packed.digest == plain.digest
    assert packed.source.names() == plain.source.names()
    name = "model-00001-of-00002.safetensors"
    assert packed.source.read(name, 3, 9) == plain.source.read(name, 3, 9)
    size = plain.source.size(name)
    # The archive goes on after the file; the file does not.
    with pytest.raises(StorageError, match="ends too early"):
        packed.source.read(name, 3, size - 2)
    with pytest.raises(StorageError, match="ends too early"):
        packed.source.read_into(name, 3, memoryview(bytearray(size - 2)))
    with pytest.raises(StorageError):
        packed.source.read("absent")


ESCAPES = ["../x", "a/../../x", "/etc/x", "a\\..\\x", "x\ny", "\x1b[2J", "a/.."]
CONTENT = ("config.json", b"{}")


@pytest.mark.abuse(1)
@pytest.mark.parametrize("name", ESCAPES)
def test_names_that_escape(name: str, settings: Settings, pack: Callable[..., str]) -> None:
    with pytest.raises(ArchiveError, match="never unpacked") as caught:
        open_source(pack(CONTENT, (name, b"x")), settings=settings)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.abuse(2, 3, 5)
@pytest.mark.parametrize(
    "member",
    [
        pytest.param(special("a", tarfile.SYMTYPE, target="/etc/passwd"), id="symlink"),
        pytest.param(special("a", tarfile.SYMTYPE, target="config.json"), id="symlink-inside"),
        pytest.param(special("a", tarfile.LNKTYPE, target="config.json"), id="hard-link"),
        pytest.param(special("a", tarfile.SYMTYPE, target="x" * 300), id="long-link"),
        pytest.param(special("a", tarfile.CHRTYPE), id="character-device"),
        pytest.param(special("a", tarfile.BLKTYPE), id="block-device"),
        pytest.param(special("a", tarfile.FIFOTYPE), id="fifo"),
        pytest.param(special("a", tarfile.GNUTYPE_SPARSE), id="sparse"),
        pytest.param(special("a", b"Z"), id="unknown-kind"),
    ],
)
@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_links_devices_and_sparse_files(
    member: tarfile.TarInfo, kind: int, settings: Settings, pack: Callable[..., str]
) -> None:
    with pytest.raises(ArchiveError, match="a is "):
        open_source(pack(CONTENT, member, kind=kind), settings=settings)


@pytest.mark.abuse(5)
def test_pax_sparse_file(settings: Settings, pack: Callable[..., str]) -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "99999999999"}
    with pytest.raises(ArchiveError, match="sparse"):
        open_source(pack(CONTENT, info), settings=settings)


@pytest.mark.abuse(4)
def test_setuid_becomes_a_fixed_mode(
    tmp_path: Path, settings: Settings, pack: Callable[..., str]
) -> None:
    info = special("config.json", tarfile.REGTYPE, mode=0o6777)
    folder = open_source(pack(info), settings=settings).local_folder()
    if folder is not None:  # an uncompressed archive is read in place
        assert stat.S_IMODE((folder / "config.json").stat().st_mode) & ~0o644 == 0


def cache_content(settings: Settings) -> list[Path]:
    return list(settings.cache.glob("archives/*")) + list(settings.cache.glob("archives/.*"))


@pytest.mark.abuse(5)
def test_gzip_bomb_stops_at_the_quota(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = tmp_path / "bomb.tar.gz"
    header = tarfile.TarInfo("a")
    header.size = 500_000
    second = tarfile.TarInfo("sub/deep/skipped")
    second.size = 2**33
    with gzip.open(bomb, "wb") as file:
        file.write(header.tobuf() + b"\0" * (-(-500_000 // 512) * 512))
        file.write(second.tobuf() + b"\0" * 4 * 10**6)
    with pytest.raises(ArchiveError, match=r"sub/deep/skipped is too large"):
        open_source(str(bomb), settings=settings)
    assert cache_content(settings) == []
    with gzip.open(bomb, "wb") as file:
        for number in range(9):
            header.name = f"sub/deep/{number}"
            file.write(header.tobuf() + b"\0" * (-(-500_000 // 512) * 512))
    with pytest.raises(ArchiveError, match="at most 1000000 bytes"):
        open_source(str(bomb), settings=settings)
    assert cache_content(settings) == []


@pytest.mark.abuse(5)
def test_headers_count_towards_the_quota(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for number in range(30):
            archive.addfile(tarfile.TarInfo(f"f{number}"))
    settings = Settings(cache_dir=tmp_path / "cache", max_archive_bytes=10_000)
    with pytest.raises(ArchiveError, match="unpacks to too much"):
        open_source(str(path), settings=settings)
    assert cache_content(settings) == []


@pytest.mark.abuse(6)
@pytest.mark.parametrize("second", ["config.json", "./config.json", "Config.JSON"])
def test_duplicates_and_case_clashes(
    second: str, settings: Settings, pack: Callable[..., str]
) -> None:
    with pytest.raises(ArchiveError, match="two files of one name"):
        open_source(pack(CONTENT, (second, b"other")), settings=settings)


@pytest.mark.abuse(7)
def test_too_many_members(settings: Settings, pack: Callable[..., str]) -> None:
    members = [(f"f{i}", b"") for i in range(50)]
    assert len(open_source(pack(*members), settings=settings).names()) == 50
    with pytest.raises(ArchiveError, match="too many members"):
        open_source(pack(*members, ("f50", b"")), settings=settings)


def test_several_folders_are_not_one_checkpoint(
    settings: Settings, pack: Callable[..., str]
) -> None:
    with pytest.raises(ArchiveError, match="2 folders"):
        open_source(pack(("a/config.json", b""), ("b/config.json", b"")), settings=settings)
    with pytest.raises(ArchiveError, match="0 folders"):
        open_source(pack(), settings=settings)


@pytest.mark.parametrize("cut", [1, 512, 1024, 5000, 9000])
def test_truncated_archives(
    cut: int, suffix: str, settings: Settings, pack: Callable[..., str]
) -> None:
    reference = pack(CONTENT, ("model.safetensors", os.urandom(20_000)))
    whole = Path(reference).read_bytes()
    # Up to 9.5 KB of zeros pad an uncompressed archive; only its end mark and its data count.
    length = len(whole) - cut - (9_728 if suffix == ".tar" else 0)
    Path(reference).write_bytes(whole[:length])
    with pytest.raises(ArchiveError, match=r"truncated|not intact gzip"):
        open_source(reference, settings=settings)
    assert cache_content(settings) == []


def test_a_damaged_header_in_the_middle_is_not_the_end(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("a", "b"):
            archive.addfile(tarfile.TarInfo(name))
    content = bytearray(path.read_bytes())
    content[512] ^= 1
    path.write_bytes(content)
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["a"]  # what the standard library makes of it
    with pytest.raises(ArchiveError, match="damaged"):
        open_source(str(path), settings=settings)


def test_data_after_the_end_mark(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tarfile.TarInfo("a").tobuf() + b"\0" * 1024 + b"more")
    with pytest.raises(ArchiveError, match="after its end mark"):
        open_source(str(path), settings=settings)


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (b"x", b"9" * 20 + b" path=a\n", "damaged"),
        (b"x", b"12 path=a\n", "damaged"),
        (b"x", b"no records", "damaged"),
        (b"x", b"10 path=a\n10 path=b\n", "twice"),
        (b"x", b"12 size=-1 \n", "impossible size"),
        (b"x", b"11 path=\xff\xff\n", "not UTF-8"),
        (b"g", b"10 path=a\n", "global header"),
        (b"L", b"../../x\0", "never unpacked"),
    ],
)
def test_extension_headers(
    kind: bytes, body: bytes, message: str, tmp_path: Path, settings: Settings
) -> None:
    header = special("ext", kind)
    header.size = len(body)
    file = tarfile.TarInfo("a")
    path = tmp_path / "a.tar"
    blocks = header.tobuf(tarfile.GNU_FORMAT) + body.ljust(512, b"\0") + file.tobuf()
    path.write_bytes(blocks + b"\0" * 1024)
    with pytest.raises(ArchiveError, match=message):
        open_source(str(path), settings=settings)


def test_two_extension_headers_for_one_member(tmp_path: Path, settings: Settings) -> None:
    blocks = b""
    for body in (b"10 path=a\n", b"10 path=b\n"):
        header = special("ext", b"x")
        header.size = len(body)
        blocks += header.tobuf(tarfile.GNU_FORMAT) + body.ljust(512, b"\0")
    path = tmp_path / "a.tar"
    path.write_bytes(blocks + tarfile.TarInfo("c").tobuf() + b"\0" * 1024)
    with pytest.raises(ArchiveError, match="two extension headers"):
        open_source(str(path), settings=settings)


@pytest.mark.abuse(97)
def test_an_extension_header_of_gigabytes_is_not_read(tmp_path: Path, settings: Settings) -> None:
    header = special("ext", b"x")
    header.size = 2**33
    path = tmp_path / "a.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    with pytest.raises(ArchiveError, match="extension header is too large"):
        open_source(str(path), settings=settings)


def test_unpacking_twice_writes_once_and_leaves_no_staging(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("config.json"))
    stale = settings.cache / "archives" / ".staging-old"
    stale.mkdir(parents=True)
    os.utime(stale, (time.time() - 10**6,) * 2)
    first = open_source(str(path), settings=settings).local_folder()
    assert cache_content(settings) == [first]
    assert first is not None
    inode = first.stat().st_ino
    second = open_source(str(path), settings=settings).local_folder()
    assert second == first
    assert second.stat().st_ino == inode


@pytest.mark.abuse(39)
def test_an_archive_that_changes_while_in_use(tmp_path: Path, settings: Settings) -> None:
    folder = write_checkpoint(tmp_path / "folder")
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(folder, "x")
    checkpoint = open_checkpoint(str(path), settings=settings)
    with tarfile.open(path, "w") as archive:
        archive.add(folder, "y")
    for use in (checkpoint.verify_pin, lambda: checkpoint.read("lm_head.weight")):
        with pytest.raises(ContentChangedError):
            use()


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


@pytest.mark.parametrize("place", ["", "bucket/deep/"])
def test_archives_in_object_stores(
    place: str,
    suffix: str,
    tmp_path: Path,
    settings: Settings,
    pack: Callable[..., str],
    memory: fsspec.AbstractFileSystem,
) -> None:
    folder = write_checkpoint(tmp_path / "folder")
    local = pack(*[(f"m/{path.name}", path.read_bytes()) for path in folder.iterdir()])
    memory.pipe(f"/{place}archive{suffix}", Path(local).read_bytes())
    packed = open_checkpoint(f"memory://{place}archive{suffix}", settings=settings)
    assert packed.digest == open_checkpoint(str(folder), settings=settings).digest
    assert (packed.source.local_folder() is None) == (suffix == ".tar")


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=4),
    length=st.integers(0, 4096),
)
def test_a_damaged_archive_is_read_or_refused(
    flips: list[tuple[int, int]], length: int, tmp_path: Path, settings: Settings
) -> None:
    content = bytearray()
    for name in ("a.json", "b.json"):
        info = tarfile.TarInfo(name)
        info.size = 5
        info.pax_headers = {"path": name}
        content += info.tobuf(tarfile.PAX_FORMAT) + b"hello".ljust(512, b"\0")
    content = bytearray(bytes(content).ljust(4096, b"\0"))
    for position, value in flips:
        content[position] = value
    path = tmp_path / "a.tar"
    path.write_bytes(content[:length])
    try:
        source = open_source(str(path), settings=settings)
        for name in source.names():
            source.read(name)
    except ZtomError:
        return
