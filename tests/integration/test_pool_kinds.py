"""The same images get the same scores in every format and on every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import topb
from support.bundles import write_bundle
from support.images import encode, random_image
from support.pools import LocalFolder, parquet_bytes, tar_bytes
from support.s3 import BUCKET, Bucket, s3_bucket
from support.servers import RunningServer, running_server
from support.web import Site, web_site
from topb_scorer.in_process import select_batch

pytestmark = pytest.mark.scorer

FORMATS = ("PNG", "JPEG", "WEBP")
IMAGES = {
    f"shelf-{i % 3}/{i:03d}.{FORMATS[i % 3].lower()}": encode(random_image(i, 12 + i % 9, 20), FORMATS[i % 3])
    for i in range(60)
}
"""By file name, which is the id in an image folder."""
BROKEN = {"broken.png": b"no image"}
PARQUET = ("bytes.parquet", "struct.parquet", "paths.parquet")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def layouts() -> dict[str, bytes]:
    """The files of pools of every format, by path."""
    files = {f"folder/{name}": image for name, image in (IMAGES | BROKEN).items()}
    names, images = list(IMAGES | BROKEN), list((IMAGES | BROKEN).values())
    struct = [
        {"bytes": image, "path": None} if i % 2 else {"bytes": None, "path": f"folder/{name}"}
        for i, (name, image) in enumerate(zip(names, images, strict=True))
    ]
    paths = [f"folder/{name}" for name in names]
    tables = {
        "bytes": {"id": names, "image": images},
        "struct": {"id": names, "image": struct},
        "paths": {"id": names, "path": paths},
        "parts/0": {"id": names[:20], "image": images[:20]},
        "parts/1/1": {"id": names[20:], "image": images[20:]},
    }
    for name, columns in tables.items():
        files[f"{name}.parquet"] = parquet_bytes(columns, row_group_size=16)
    files["list.csv"] = ("id,path\r\n" + "".join(f"{name},folder/{name}\r\n" for name in names)).encode()
    members = ((member, (f"{key_of(member[0])}.cls", b"1")) for member in zip(names, images, strict=True))
    files["pool.tar"] = tar_bytes([member for sample in members for member in sample])
    return files


@pytest.fixture(scope="module")
def here(layouts: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pools")
    for name, content in layouts.items():
        LocalFolder(root).put(name, content)
    return root


@pytest.fixture(scope="module")
def bucket(layouts: dict[str, bytes]) -> Iterator[Bucket]:
    with s3_bucket() as bucket:
        for name, content in layouts.items():
            bucket.put(f"data/{name}", content)
        bucket.put("secret/a.png", next(iter(IMAGES.values())))
        yield bucket


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with web_site() as site:
        for name, image in IMAGES.items():
            site.put(f"/open/{name}", image)
        yield site


@pytest.fixture(scope="module")
def server(bundle: Path, here: Path, bucket: Bucket, site: Site) -> Iterator[RunningServer]:
    options = (f"--allow-root=s3://{BUCKET}/data/", f"--allow-root={site.root}/open/")
    with running_server(bundle.parent, here, options=options) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[topb.Client]:
    with topb.Client(server.address, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def expected(bundle: Path, here: Path) -> topb.SelectionResult:
    return select_batch(str(here / "bytes.parquet"), 100, bundle=bundle)


def scores(result: topb.SelectionResult, id_of: Callable[[str], str] = str) -> list[tuple[str, float]]:
    return [(id_of(pick.id), pick.score) for pick in result.picks]


def key_of(name: str) -> str:
    return name.partition(".")[0]


def test_the_reference_result_contains_every_image(expected: topb.SelectionResult) -> None:
    assert set(expected.ids) == set(IMAGES)
    assert expected.accounts.scored == 60
    assert dict(expected.accounts.skipped) == {"IMAGE_FORMAT_UNKNOWN": 1}


@pytest.mark.parametrize("pool", ["folder", "list.csv", "parts", "parts/**/*.parquet", *PARQUET])
def test_every_layout_gives_the_same_result_locally_on_s3_and_served(
    pool: str, here: Path, bundle: Path, client: topb.Client, expected: topb.SelectionResult
) -> None:
    results = [
        select_batch(str(here / pool), 100, bundle=bundle),
        select_batch(f"s3://{BUCKET}/data/{pool}", 100, bundle=bundle),
        client.select_batch(here / pool, 100),
        client.select_batch(f"s3://{BUCKET}/data/{pool}", 100),
    ]
    for result in results:
        assert scores(result) == scores(expected)
        assert result.accounts == expected.accounts


def test_tar_files_give_the_same_scores_under_their_keys(
    here: Path, bundle: Path, client: topb.Client, expected: topb.SelectionResult
) -> None:
    results = [
        select_batch(topb.Pool(here / "pool.tar", format="webdataset"), 100, bundle=bundle),
        client.select_batch(here / "pool.tar", 100),
        client.select_batch(topb.Pool(f"s3://{BUCKET}/data/*.tar", format="webdataset"), 100),
    ]
    for result in results:
        assert sorted(scores(result)) == sorted(scores(expected, key_of))
        assert dict(result.accounts.skipped) == {"IMAGE_FORMAT_UNKNOWN": 1}


def test_a_list_of_urls_gives_the_same_scores(
    here: Path, client: topb.Client, site: Site, expected: topb.SelectionResult
) -> None:
    urls = "".join(f"{name},{site.root}/open/{name}\n" for name in IMAGES)
    odd = f"gone,{site.root}/open/gone.png\nelsewhere,{site.root}/secret.png\n"
    (here / "urls.csv").write_text(f"key,url\n{urls}{odd}")
    pool = topb.Pool(here / "urls.csv", format="csv", id_column="key", path_column="url")
    result = client.select_batch(pool, 100)

    assert scores(result) == scores(expected)
    assert dict(result.accounts.skipped) == {"FILE_MISSING": 1, "FILE_NOT_ALLOWED": 1}
    assert "/secret.png" not in site.asked


def test_excluded_ids_can_be_read_from_s3(here: Path, bucket: Bucket, client: topb.Client) -> None:
    uri = bucket.put("data/labelled.parquet", parquet_bytes({"id": list(IMAGES)[:50]}, row_group_size=16))
    result = client.select_batch(here / "bytes.parquet", 100, exclude=topb.ExcludeFile(uri))

    assert set(result.ids) == set(list(IMAGES)[50:])
    assert result.accounts.excluded == 50


@pytest.mark.parametrize("key", ["secret", "data/../secret", "", "data-beside", "*/a.png"])
def test_s3_objects_outside_the_roots_are_refused(key: str, client: topb.Client) -> None:
    with pytest.raises(topb.TopbError) as caught:
        client.select_batch(f"s3://{BUCKET}/{key}", 1)
    assert caught.value.reason == "POOL_NOT_ALLOWED"
