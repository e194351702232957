"""Who wrote a variant: signed, unsigned, changed after it was signed, or by a wrong key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from toys import make_plain_chain

from ztom.blending.chain import load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.errors import SignatureError, VariantError
from ztom.io.signatures import Signature, public_key_of, signing_key
from ztom.settings import Settings
from ztom.variants.copies import copy_variant
from ztom.variants.manifest import check_files, read_manifest, verify_manifest
from ztom.variants.signature import SIGNATURE, read_signature, require_signer, sign_variant
from ztom.variants.verify import verify_variant
from ztom.variants.write import stage_variant


@pytest.fixture
def variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZTOM_ACTOR", "local:ada")
    paths = make_plain_chain(tmp_path / "chain")
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in paths]})
    chain = load_chain(config, settings=Settings())
    with stage_variant(chain, (0.1, -0.2), tmp_path / "variant") as staged:
        staged.publish()
    return tmp_path / "variant"


def own_key(tmp_path: Path) -> str:
    return public_key_of(signing_key(tmp_path / "signing.key"))


def test_what_is_written_is_signed_with_ones_own_key(variant: Path, tmp_path: Path) -> None:
    assert (tmp_path / "signing.key").stat().st_mode & 0o777 == 0o600
    check = verify_variant(variant, settings=Settings())
    assert check.signed is not None
    assert (check.signed.signer, check.signed.public_key) == ("local:ada", own_key(tmp_path))
    assert check.signed.text.startswith("local:ada (key ")
    assert SIGNATURE not in read_manifest(variant).files, "the digest is of the content alone"
    assert check.tolerated == ()


def test_an_old_variant_opens_unsigned_unless_it_has_to_be_signed(variant: Path) -> None:
    (variant / SIGNATURE).unlink()
    assert verify_variant(variant, settings=Settings()).signed is None
    with pytest.raises(SignatureError, match="is unsigned: expected a variant that is signed"):
        verify_variant(variant, settings=Settings(signed_only=True))


@pytest.mark.abuse(91)
def test_a_wrong_key_is_refused(variant: Path, tmp_path: Path) -> None:
    """Case 91: somebody changes a file, writes the manifest anew and signs with a key of theirs."""
    mine = Settings(signers=(own_key(tmp_path),))
    assert verify_variant(variant, settings=mine).signed is not None
    other = Settings(signers=(public_key_of(signing_key(tmp_path / "other.key")),))
    with pytest.raises(SignatureError, match=r"not trusted here: got local:ada \(key"):
        verify_variant(variant, settings=other)
    with pytest.raises(SignatureError, match="not trusted"):
        require_signer(variant, check_files(variant).signed, settings=other)


def test_a_signature_of_another_manifest_is_refused_wherever_it_is_read(
    variant: Path, tmp_path: Path
) -> None:
    digest = read_manifest(variant).digest
    signed = json.loads((variant / SIGNATURE).read_text())
    renamed = {**signed, "signer": "release manager"}
    moved = json.loads((variant / SIGNATURE).read_text())
    forged = Signature.of(b"something else", signing_key(tmp_path / "signing.key"))
    moved["signature"] = forged.model_dump()
    for content in (renamed, moved):
        (variant / SIGNATURE).write_text(json.dumps(content))
        for read in (verify_manifest, lambda folder: read_signature(folder, digest)):
            with pytest.raises(SignatureError, match="the signature of the variant's manifest"):
                read(variant)


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 5000, b'{"signer": "a"}', b"\xff"])
def test_what_is_no_signature_is_said(variant: Path, content: bytes) -> None:
    (variant / SIGNATURE).write_bytes(content)
    with pytest.raises(VariantError, match=r"manifest\.sig is no signature"):
        verify_manifest(variant)


def test_spelt_anew_it_is_no_signature(variant: Path) -> None:
    """Base64 has several spellings of some bytes; one of them counts."""
    signed = json.loads((variant / SIGNATURE).read_text())
    text = signed["signature"]["public_key"]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = letters[letters.index(text[-2]) ^ 1]
    signed["signature"]["public_key"] = f"{text[:-2]}{other}="
    (variant / SIGNATURE).write_text(json.dumps(signed))
    with pytest.raises(VariantError, match="is no signature"):
        verify_manifest(variant)


def test_a_copy_takes_its_signature_along(variant: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(variant, tmp_path / "copy")
    assert check_files(copy).signed == check_files(variant).signed
    copy_variant(variant, "memory://signed/variant")
    import fsspec

    store = fsspec.filesystem("memory")
    assert store.cat_file("/signed/variant/manifest.sig") == (variant / SIGNATURE).read_bytes()


def test_where_there_can_be_no_key_it_is_unsigned_and_said(
    variant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    (variant / SIGNATURE).unlink()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZTOM_KEY_FILE", str(tmp_path / "file" / "key"))
    assert sign_variant(variant, read_manifest(variant).digest) is None
    assert "variant is not signed: no key can be made" in caplog.text
    assert check_files(variant).signed is None
