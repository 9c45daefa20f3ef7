from __future__ import annotations

from pathlib import Path

import pytest

from topb_scorer.errors import AccessDeniedError, InvalidRequestError
from topb_scorer.pools import AllowedRoots
from topb_scorer.pools.storage.addresses import LocalAddress, shown

pytestmark = pytest.mark.scorer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("root/sub", "root-beside", "other"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("root/a.parquet", "root/sub/b.parquet", "root-beside/c.parquet", "other/d.parquet"):
        (tmp_path / file).touch()
    root = tmp_path / "root"
    (root / "out").symlink_to(tmp_path / "other")
    (root / "out.parquet").symlink_to("../other/d.parquet")
    (root / "in.parquet").symlink_to("sub/b.parquet")
    (tmp_path / "other" / "back").symlink_to(root)
    (tmp_path / "link").symlink_to(root)
    return root


def allowed(roots: AllowedRoots, uri: str) -> Path | str:
    """Return the path that the URI leads to, or the reason why it may not be read."""
    try:
        address = roots.allowed_address(uri)
    except (AccessDeniedError, InvalidRequestError) as error:
        return error.reason if error.metadata["uri"] == shown(uri) else "another URI"
    assert isinstance(address, LocalAddress)
    return address.path


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("{root}", ""),
        ("{root}/sub/b.parquet", "sub/b.parquet"),
        ("{root}/sub/../a.parquet", "a.parquet"),
        ("{root}/later/x", "later/x"),
        ("file://{root}/a.parquet", "a.parquet"),
        ("file://localhost{root}/a.parquet", "a.parquet"),
        ("FILE://{root}/a.parquet", "a.parquet"),
        ("{root}/in.parquet", "sub/b.parquet"),
        ("{root}/../other/back/a.parquet", "a.parquet"),
        ("{root}/../link/a.parquet", "a.parquet"),
    ],
)
@pytest.mark.parametrize("name", ["root", "link"])
def test_paths_below_a_root_may_be_read(name: str, uri: str, path: str, root: Path) -> None:
    roots = AllowedRoots.below([root.parent / name])
    assert allowed(roots, uri.format(root=root)) == root / path


@pytest.mark.parametrize(
    "uri",
    [
        "/",
        "/etc/passwd",
        "{root}/..",
        "{root}/../later",
        "{root}/../other/d.parquet",
        "{root}/sub/../../other/d.parquet",
        "{root}-beside/c.parquet",
        "{root}/out/d.parquet",
        "{root}/out.parquet",
        "file://{root}/../other/d.parquet",
        "file://{root}/%2e%2e/other/d.parquet",
        "file://{root}/%2E%2E%2Fother/d.parquet",
        "other/d.parquet",
        "~/secrets",
    ],
)
def test_paths_outside_the_roots_may_not_be_read(root: Path, uri: str) -> None:
    assert allowed(AllowedRoots.below([root]), uri.format(root=root)) == "POOL_NOT_ALLOWED"


def test_circular_links_are_refused_or_left_unresolved(root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    # Python 3.13 leaves such a link as it is; reading it then fails.
    assert allowed(AllowedRoots.below([root]), f"{root}/one") in {"POOL_URI", root / "one"}


@pytest.mark.parametrize("roots", [AllowedRoots.anywhere(), AllowedRoots.below([Path("/")])])
@pytest.mark.parametrize(
    "uri",
    [
        "",
        "\0",
        "/tmp/a\0b",
        "file:///tmp/a%00b",
        "file://",
        "file://elsewhere/tmp/pool",
        "file://[half/pool",
        "://pool",
        "file:///tmp/pool#1.parquet",
        "file:///tmp/pool?.parquet",
    ],
)
def test_text_that_is_neither_path_nor_uri_is_refused(roots: AllowedRoots, uri: str) -> None:
    assert allowed(roots, uri) == "POOL_URI"


def test_escapes_are_resolved_in_uris_and_not_in_paths(tmp_path: Path) -> None:
    anywhere = AllowedRoots.anywhere()
    assert allowed(anywhere, f"file://{tmp_path}/a%20b%23%3f%C3%A9") == tmp_path / "a b#?é"
    assert allowed(anywhere, f"{tmp_path}/a%20b") == tmp_path / "a%20b"
    assert allowed(anywhere, f"{tmp_path}/a#b?c") == tmp_path / "a#b?c"
    assert allowed(anywhere, f"file://{tmp_path}/%2520") == tmp_path / "%20"


def test_without_roots_nothing_may_be_read(root: Path) -> None:
    with pytest.raises(AccessDeniedError, match="--allow-root") as caught:
        AllowedRoots.below([]).allowed_address(str(root))
    assert caught.value.reason == "POOL_NOT_ALLOWED"


def test_a_path_below_any_of_several_roots_may_be_read(root: Path) -> None:
    roots = AllowedRoots.below([root, root.parent / "other"])
    assert allowed(roots, f"{root.parent}/other/d.parquet") == root.parent / "other" / "d.parquet"
    assert allowed(roots, f"{root.parent}/root-beside/c.parquet") == "POOL_NOT_ALLOWED"


def test_without_restriction_every_path_may_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    anywhere = AllowedRoots.anywhere()
    assert allowed(anywhere, "/etc/passwd") == Path("/etc/passwd").resolve()
    monkeypatch.chdir(root)
    assert allowed(anywhere, "sub/b.parquet") == root / "sub" / "b.parquet"


def test_a_root_may_be_a_prefix_on_s3_or_on_the_web(root: Path) -> None:
    roots = AllowedRoots.below([str(root), "s3://bucket/a/b", "https://Example.org:443/images/"])
    assert roots.prefixes == (f"{root}/", "s3://bucket/a/b/", "https://example.org/images/")
    for uri in (
        "s3://bucket/a/b",
        "s3://bucket/a/b/",
        "S3://bucket/a/b/c.parquet",
        "s3://bucket/a/b/c/../d",
        "s3://bucket/x/../a/b/c?d#e",
        "https://example.org/images",
        "HTTPS://EXAMPLE.ORG/images/a b.png?size=../large",
        "https://example.org/images/x/../a.png#part",
        f"{root}/a.parquet",
    ):
        roots.allowed_address(uri)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://bucket/a", "POOL_NOT_ALLOWED"),
        ("s3://bucket/a/bc", "POOL_NOT_ALLOWED"),
        ("s3://bucket/a/b/../c", "POOL_NOT_ALLOWED"),
        ("s3://bucket2/a/b/c", "POOL_NOT_ALLOWED"),
        ("s3://bucket/a/b/%2e%2e/c", "POOL_URI"),
        ("s3://bucket/a/b/%252E%252E%252Fc", "POOL_URI"),
        ("s3://bucket/../x", "POOL_URI"),
        ("s3://bucket//a/b", "POOL_URI"),
        ("s3://bucket/a/b//c", "POOL_URI"),
        ("s3://bucket/a/b/c\n", "POOL_URI"),
        ("s3://", "POOL_URI"),
        ("s3:///a/b", "POOL_URI"),
        ("s3://user@bucket/a/b", "POOL_URI"),
        ("s3://../a/b", "POOL_URI"),
        ("http://example.org/images/a", "POOL_NOT_ALLOWED"),
        ("https://example.org:444/images/a", "POOL_NOT_ALLOWED"),
        ("https://example.org/Images/a", "POOL_NOT_ALLOWED"),
        ("https://example.org/images-beside/a", "POOL_NOT_ALLOWED"),
        ("https://example.org/images/../a", "POOL_NOT_ALLOWED"),
        ("https://example.org.evil.org/images/a", "POOL_NOT_ALLOWED"),
        ("https://example.org/images/..%2fa", "POOL_URI"),
        ("https://example.org/images/%2e%2e/a", "POOL_URI"),
        ("https://example.org/images/.%252e/a", "POOL_URI"),
        ("https://example.org/images/..\\a", "POOL_URI"),
        ("https://example.org@evil.org/images/a", "POOL_URI"),
        ("https://evil.org#@example.org/images/a", "POOL_NOT_ALLOWED"),
        ("https://example.org:x/images/a", "POOL_URI"),
        ("https:///images/a", "POOL_URI"),
        ("https://exam ple.org/images/a", "POOL_URI"),
        ("https://example.org/images/a\r\nHost: evil.org", "POOL_URI"),
        ("ftp://example.org/images/a", "POOL_URI"),
        ("/etc/passwd", "POOL_NOT_ALLOWED"),
        ("file:///etc/passwd", "POOL_NOT_ALLOWED"),
    ],
)
def test_uris_outside_a_prefix_may_not_be_read(uri: str, reason: str) -> None:
    assert allowed(AllowedRoots.below(["s3://bucket/a/b/", "https://example.org/images/"]), uri) == reason


def test_directories_allow_nothing_on_s3_or_on_the_web(root: Path) -> None:
    for uri in ("s3://bucket/a", "https://example.org/a"):
        with pytest.raises(AccessDeniedError):
            AllowedRoots.below(["/"]).allowed_address(uri)
        AllowedRoots.anywhere().allowed_address(uri)


@pytest.mark.parametrize(
    "uri", ["s3://", "https://", "ftp://host/", "https://host/a?b=c", "https://u:p@host/"]
)
def test_unsupported_roots_are_refused(uri: str) -> None:
    with pytest.raises(InvalidRequestError):
        AllowedRoots.below([uri])


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://host/a.png?X-Amz-Signature=secret", "https://host/a.png?…"),
        ("HTTPS://host/a.png#secret", "HTTPS://host/a.png?…"),
        ("https://user:secret@host/a@b.png", "https://host/a@b.png"),
        ("https://host?secret", "https://host?…"),
        ("ftp://user:secret@host/a", "ftp://host/a"),
        ("https://host/a.png", "https://host/a.png"),
        ("s3://bucket/a?b#c", "s3://bucket/a?b#c"),
        ("file:///a?b", "file:///a?b"),
        ("folder/a?b@c.png", "folder/a?b@c.png"),
    ],
)
def test_an_address_is_shown_without_its_secrets(uri: str, expected: str) -> None:
    assert shown(uri) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "https://user:secret@host/a",
        "https://host:x/a?secret",
        "https://[/a?secret",
        "https://elsewhere/?secret",
    ],
)
def test_a_refusal_shows_neither_secrets_nor_the_allowed_roots(uri: str) -> None:
    roots = AllowedRoots.below(["/srv/of-another-project", "https://host/a"])
    with pytest.raises((AccessDeniedError, InvalidRequestError)) as caught:
        roots.allowed_address(uri)
    told = f"{caught.value} {caught.value.metadata}"
    assert "secret" not in told
    assert "another-project" not in told
