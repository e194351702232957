"""References: what is refused before any store is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ztom.checkpoints.reference import is_plain_name, parse_reference
from ztom.checkpoints.storage import open_source
from ztom.errors import ReferenceRefusedError
from ztom.settings import Settings

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        allowed_roots=(str(tmp_path), "memory://", "gs://", "s3://"),
        cache_dir=tmp_path / "cache",
        storage_retries=3,
    )


@pytest.mark.abuse(32, 33, 34, 35, 37)
@pytest.mark.parametrize(
    "reference",
    [
        pytest.param("file:///etc/passwd", id="file-outside-roots"),
        pytest.param("/etc/passwd", id="bare-path-outside-roots"),
        pytest.param("local:/etc/passwd", id="local"),
        pytest.param("file:/etc/passwd", id="no-slashes"),
        pytest.param("file://host/etc/passwd", id="host"),
        pytest.param("dir::/etc", id="dir"),
        pytest.param("filecache::http://169.254.169.254", id="chained"),
        pytest.param("zip://x::gs://bucket/x.zip", id="chained-zip"),
        pytest.param("gs://bucket/a::memory://b", id="chained-last"),
        pytest.param("http://169.254.169.254/latest", id="http"),
        pytest.param("ftp://host/x", id="ftp"),
        pytest.param("github://org:repo@/x", id="github"),
        pytest.param("gcs://bucket/x", id="alias"),
        pytest.param("gs://bucket/../x", id="dots"),
        pytest.param("gs://bucket/./x", id="dot"),
        pytest.param("gs://bucket//x", id="empty-step"),
        pytest.param("gs://bucket/%2e%2e/x", id="percent"),
        pytest.param("gs://bucket/a\\..\\x", id="backslash"),
        pytest.param("gs://bucket/x#123", id="fragment"),
        pytest.param("gs://bucket/x\n", id="newline"),
        pytest.param("gs://bucket/x?versions=1", id="query"),
        pytest.param("gs://bucket/*", id="glob"),
        pytest.param("memory://a/../b", id="memory-dots"),
        pytest.param("s3://key:secret@bucket/x", id="credentials"),
        pytest.param("s3://localhost:9000/bucket", id="endpoint"),
        pytest.param("gs://", id="no-bucket"),
        pytest.param("", id="empty"),
        pytest.param("x" * 5000, id="too-long"),
        pytest.param("a\0b", id="nul"),
    ],
)
def test_reference_is_refused(reference: str, settings: Settings) -> None:
    with pytest.raises(ReferenceRefusedError):
        open_source(reference, settings=settings)


@pytest.mark.parametrize(
    ("rest", "named"),
    [("a::b", "'::'"), ("a#b", "'#'"), ("a\\b", r"'\\\\'"), ("%2e%2e/x", "percent")],
)
@pytest.mark.parametrize("root", ["", "file://", "gs://bucket"])
def test_what_fsspec_or_a_store_would_interpret_is_named(
    root: str, rest: str, named: str, settings: Settings, tmp_path: Path
) -> None:
    place = root if root.startswith("gs") else f"{root}{tmp_path}"
    with pytest.raises(ReferenceRefusedError, match=f"got {named}"):
        open_source(f"{place}/{rest}", settings=settings)


def test_schemes_and_roots_narrow_what_is_allowed(tmp_path: Path) -> None:
    settings = Settings(allowed_schemes=("gs",), allowed_roots=("gs://team/models", "/"))
    assert parse_reference("gs://team/models/a", settings=settings).path == "team/models/a"
    for outside in (
        "gs://team/models-of-others/a",
        "gs://team",
        "s3://team/models/a",
        str(tmp_path),
    ):
        with pytest.raises(ReferenceRefusedError):
            parse_reference(outside, settings=settings)


def test_a_link_to_a_folder_outside_the_roots_is_refused(tmp_path: Path) -> None:
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots" / "link").symlink_to("/etc")
    settings = Settings(allowed_roots=(str(tmp_path / "roots"),))
    with pytest.raises(ReferenceRefusedError, match="roots"):
        open_source(str(tmp_path / "roots" / "link"), settings=settings)


@hypothesis_settings(deadline=None)
@given(
    st.text(max_size=60)
    | st.from_regex(r"(file|gs|s3|memory)://[ -~]{0,40}", fullmatch=True)
    | st.from_regex(
        r"((file://)?/srv/models|gs://team/models|memory://x)[a-c./%2e\\#?-]{0,20}", fullmatch=True
    )
)
@example("/srv/models/a/../b")
@example("gs://team/models/a.tar.gz")
def test_any_text_is_refused_or_stays_under_the_roots(text: str) -> None:
    settings = Settings(allowed_roots=("/srv/models", "gs://team/models", "memory://x"))
    try:
        parsed = parse_reference(text, settings=settings)
    except ReferenceRefusedError:
        return
    roots = {"file": "/srv/models", "gs": "team/models", "memory": "x"}
    root = roots[parsed.scheme]
    assert parsed.path == root or parsed.path.startswith(f"{root}/")
    assert ".." not in parsed.path.split("/")


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("model-00001-of-00002.safetensors", True),
        ("vocab.json", True),
        (".hidden", False),
        ("a/b", False),
        ("a\\b", False),
        ("x\n", False),
        ("..", False),
        ("x.", False),
        ("", False),
        ("x" * 201, False),
    ],
)
def test_plain_names(name: str, plain: bool) -> None:
    assert is_plain_name(name) is plain
