"""Credentials of the AWS chain: refreshed while a run goes on, and never told."""

import json
import stat
import sys
import traceback

import numpy as np
import pytest
from botocore import session
from s3_server import Proxy

from radiobject.ctx import S3Config, configure, reset_radiobject_config
from radiobject.exceptions import ConfigurationError, StorageError
from radiobject.geometry.box import Box
from radiobject.storage.cache import tile_cache
from radiobject.storage.io import files, object_store
from radiobject.storage.read import reader
from radiobject.storage.tables import writer

pytestmark = pytest.mark.s3
SHAPE = (20, 20, 20)
SECRET, TOKEN = "very-secret-key", "very-secret-token"
GIVE = """
import datetime, json, pathlib, sys
at = pathlib.Path(sys.argv[1])
given = json.loads(at.read_text())
if given is None:
    sys.exit("the sign-in has ended, {secret} is not valid any more")
soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)
print(json.dumps({{"Version": 1, "AccessKeyId": given, "SecretAccessKey": "{secret}",
                  "SessionToken": "{token}", "Expiration": soon.isoformat()}}))
"""


@pytest.fixture
def volume(s3_bucket, monkeypatch):
    monkeypatch.setenv("RADIOBJECT_CACHE", "off")
    tile_cache.detach()
    data = np.arange(8000, dtype=np.int16).reshape(SHAPE)
    yield data, writer.write_volume(f"s3://{s3_bucket}/v", data, metadata={"obs_id": "a"})
    reader.close_all()
    tile_cache.detach()


@pytest.fixture
def proxy(s3_endpoint, volume):
    proxy = Proxy(s3_endpoint)
    configure(s3=S3Config(endpoint=proxy.endpoint))
    yield proxy
    proxy.close()


@pytest.fixture
def signed_in(tmp_path, monkeypatch):
    """A profile whose credentials a program gives, for two seconds; who asks gets `key`."""
    key, program, config = tmp_path / "key", tmp_path / "give.py", tmp_path / "config"
    program.write_text(GIVE.format(secret=SECRET, token=TOKEN))
    config.write_text(f"[profile p]\ncredential_process = {sys.executable} {program} {key}\n")
    key.write_text(json.dumps("FIRST"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "p")
    return key


def read(locator):
    out = np.empty(SHAPE, np.int16)
    reader.read_into(locator, Box.whole(SHAPE), out)
    return out


def said(error):
    return "".join(traceback.format_exception(error))


def test_expired_credentials_are_refreshed_in_the_middle_of_a_run(volume, proxy, signed_in):
    data, locator = volume
    np.testing.assert_array_equal(read(locator), data)
    signed_in.write_text(json.dumps("SECOND"))
    proxy.expired.add("FIRST")
    np.testing.assert_array_equal(read(locator), data)


def test_credentials_that_are_refused_are_an_error_without_the_secret(volume, proxy, signed_in):
    _, locator = volume
    proxy.expired.add("FIRST")
    with pytest.raises(StorageError, match=rf"{locator.uri}/.*valid and not expired") as caught:
        read(locator)
    assert SECRET not in said(caught.value)
    assert TOKEN not in said(caught.value)


def test_credentials_that_cannot_be_refreshed_are_an_error_without_the_secret(
    volume, proxy, signed_in
):
    data, locator = volume
    np.testing.assert_array_equal(read(locator), data)
    signed_in.write_text("null")
    proxy.expired.add("FIRST")
    with pytest.raises(StorageError, match=rf"{locator.uri}/.*could not be refreshed") as caught:
        read(locator)
    assert SECRET not in said(caught.value)


def test_a_profile_that_was_written_anew_is_read_again(volume, proxy, tmp_path, monkeypatch):
    data, locator = volume
    keys = tmp_path / "credentials"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    for key in ("FIRST", "SECOND"):
        keys.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key={SECRET}\n")
        keys.chmod(stat.S_IRUSR | stat.S_IWUSR)
        np.testing.assert_array_equal(read(locator), data)
        proxy.expired.add(key)


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """No credentials but those of a profile that is not asked for."""
    config = tmp_path / "config"
    config.write_text("[profile p]\naws_access_key_id=OF_P\naws_secret_access_key=x\n")
    for name in ("AWS_PROFILE", *object_store._VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


KEYS = {"AWS_ACCESS_KEY_ID": "FIRST", "AWS_SECRET_ACCESS_KEY": SECRET}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"AWS_SESSION_TOKEN": TOKEN},
        {"AWS_SESSION_TOKEN": TOKEN, "AWS_SECURITY_TOKEN": "another"},
        {"AWS_PROFILE": "p"},
        {"AWS_CREDENTIAL_EXPIRATION": "2099-01-01T00:00:00Z"},
    ],
)
def test_the_environment_gives_what_the_chain_would(environment, monkeypatch, given):
    for name, value in {**KEYS, **given}.items():
        monkeypatch.setenv(name, value)
    found = object_store._ask_chain().get_frozen_credentials()
    expected = session.get_session().get_credentials().get_frozen_credentials()
    assert (found.access_key, found.secret_key, found.token) == expected[:3]
    assert SECRET not in repr(object_store._ask_chain())


def test_half_of_a_key_is_an_error_without_it(environment, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FIRST")
    with pytest.raises(StorageError, match="could not be refreshed"):
        object_store._ask_chain()


@pytest.mark.parametrize("bad", ["s3://", "s3:///key", "http://b/key", "/folder", "s3:/b/k"])
def test_other_addresses_are_refused(bad):
    with pytest.raises(ConfigurationError, match="s3://bucket/name"):
        object_store.split(bad)


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://b", ("s3://b", "")),
        ("s3://b/a b/c/", ("s3://b", "a b/c")),
        ("gs://b/#?", ("gs://b", "#?")),
        ("azure://c/x", ("azure://c", "x")),
    ],
)
def test_addresses_come_apart(uri, parts):
    assert object_store.split(uri) == parts


def test_an_endpoint_in_the_settings_wins_over_the_environment(volume, s3_endpoint, monkeypatch):
    data, locator = volume
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    configure(s3=S3Config(endpoint=s3_endpoint))
    np.testing.assert_array_equal(read(locator), data)


def test_what_cannot_be_reached_is_named_in_our_words(s3_endpoint):
    configure(s3=S3Config(endpoint="http://127.0.0.1:9", patience_s=0))
    uri = "s3://bucket/brains"
    for ask in (files.list_folder, files.is_something, files.remove_file, files.read_text):
        with pytest.raises(StorageError, match=rf"{uri} cannot be reached: .*check address"):
            ask(uri)
    with pytest.raises(StorageError, match=rf"{uri} cannot be reached"):
        files.write_small(uri, b"x")


def test_patience_ends():
    from obstore.exceptions import GenericError

    tries = []

    def busy():
        tries.append(1)
        raise GenericError("Server returned non-2xx status code: 503 Service Unavailable")

    configure(s3=S3Config(patience_s=0.3))
    try:
        with pytest.raises(GenericError):
            object_store.patiently(busy)
    finally:
        reset_radiobject_config()
    assert 2 <= len(tries) <= 5
