"""Models: on disk, from the hub, and into memory."""

import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import demucs.hf
import demucs.pretrained
import pytest
import torch
import yaml
from demucs.demucs import Demucs
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs

from demixd import config
from demixd.config.sections import Paths
from demixd.engine import host
from demixd.engine.families.demucs import LoadedModel
from demixd.engine.families.demucs import load as load_files
from demixd.engine.models import bag as bags
from demixd.engine.models import catalog, configured, listing, store
from demixd.engine.models import fetch as fetching
from demixd.engine.models.fetch import FetchProgress, fetch
from demixd.engine.openvino import converter
from demixd.errors import AudioProcessingError, Code, ConfigError, StopProcessingError
from hub import COMMIT, Hub, Request
from members import REPO, SIG, SMALL, STEMS, packed, put, random_module

SOURCE_ROOT = Path(store.__file__).parents[3]


@pytest.fixture(scope="module")
def module() -> HTDemucs:
    return random_module(0)


@pytest.fixture(scope="module")
def member(module: HTDemucs) -> bytes:
    return packed(module, SMALL)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def local(models: Path, member: bytes) -> Path:
    """The models folder, with htdemucs in it."""
    put(models, "htdemucs", {SIG: member})
    return models


@pytest.fixture
def hub(member: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import close_session

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetching, "RETRY_PAUSE_S", 0.01)
    close_session()  # its client has read the proxies of the environment before
    with Hub(
        files={(REPO, "htdemucs.yaml"): f"models: ['{SIG}']\n".encode(), (REPO, f"{SIG}.safetensors"): member}
    ) as hub:
        yield hub
        close_session()


def locate(models: Path, name: str = "htdemucs", repo: Path | None = None, pickles: bool = False) -> store.ModelFiles:
    recorded = models.parent / "state" / "recorded"
    return store.locate(name, repo=repo, models=models, allow_pickle=pickles, recorded=recorded)


def load(models: Path, name: str = "htdemucs", repo: Path | None = None, pickles: bool = False) -> LoadedModel:
    return load_files(locate(models, name, repo, pickles), allow_pickle=pickles)


def refused(code: Code, what: Callable[[], object], *words: str) -> AudioProcessingError:
    """Doing it is an error with this code, whose sentence has these words."""
    with pytest.raises(AudioProcessingError) as caught:
        what()
    assert caught.value.code is code
    for word in words:
        assert word in caught.value.message
    return caught.value


def fetch_from(hub: Hub, models: Path, name: str = "htdemucs") -> store.ModelFiles:
    return fetch(name, models, progress=lambda _: None, endpoint=hub.endpoint)


def same_state(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(
        one[key].dtype == two[key].dtype and torch.equal(one[key], two[key]) for key in one
    )


def python(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=inherited | {"PYTHONPATH": str(SOURCE_ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


FETCH = """
import sys
from pathlib import Path
from demixd.errors import AudioProcessingError
from demixd.engine.models.fetch import fetch
try:
    fetch("htdemucs", Path(sys.argv[1]), progress=lambda _: None)
except AudioProcessingError as error:
    print(error.code, error.message)
"""


# ---- names


def test_repositories_are_named_as_demucs_names_them() -> None:
    """Every published model is looked for where Demucs looks for it."""
    for name in catalog.PUBLISHED:
        assert catalog.hub_repo(name) == f"{demucs.hf.DEFAULT_NAMESPACE}/{demucs.hf.hf_repo_name(name)}"


def test_published_names_are_demucs_own() -> None:
    """The table holds exactly the bags that Demucs ships, but for the quantized ones."""
    shipped = {path.stem for path in demucs.pretrained.REMOTE_ROOT.glob("*.yaml")}
    assert set(catalog.PUBLISHED) | catalog.QUANTIZED == shipped


def test_published_members_are_demucs_own() -> None:
    """The table has the members of each bag that Demucs ships, each once: a machine without a network cannot ask for them."""
    for name, published in catalog.PUBLISHED.items():
        shipped = bags.read(demucs.pretrained.REMOTE_ROOT / f"{name}.yaml")
        assert published.members == tuple(dict.fromkeys(shipped.sigs))


def test_the_store_is_light() -> None:
    """Importing the store and the fetcher imports neither torch nor demucs nor huggingface_hub."""
    code = (
        "import sys, demixd.engine.models.fetch, demixd.engine.models.store; "
        "print({'torch', 'demucs', 'safetensors', 'huggingface_hub'} & set(sys.modules))"
    )
    assert python(code).communicate()[0] == "set()\n"


# ---- the store


def test_locate_finds_every_file(local: Path) -> None:
    """A model is its bag and a file for each signature in it, in the bag's order."""
    files = locate(local)
    assert [(member.sig, member.path) for member in files.members] == [(SIG, local / f"{SIG}.safetensors")]
    assert (files.bag.weights, files.bag.segment) == (None, None)


def test_a_missing_model_says_how_to_get_it(models: Path) -> None:
    """A published model that is not there is to be fetched; any other is to be put there."""
    refused(Code.MODEL_MISSING, lambda: locate(models), "htdemucs.yaml", "`demixd models fetch htdemucs`", str(models))
    error = refused(Code.MODEL_MISSING, lambda: locate(models, "mine"), "mine.yaml", str(models))
    assert "fetch" not in error.message


def test_who_may_not_write_fetches_by_sudo(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the models are root's, the command that helps is root's too."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused(Code.MODEL_MISSING, lambda: locate(models), "`sudo demixd models fetch htdemucs`")


def test_a_missing_member_is_a_missing_model(local: Path) -> None:
    """A bag without one of its members is `model-missing`, and the member is named."""
    (local / f"{SIG}.safetensors").unlink()
    refused(Code.MODEL_MISSING, lambda: locate(local), f"{SIG}.safetensors")


def test_a_repo_takes_the_place_of_the_models_folder(local: Path, tmp_path: Path, member: bytes) -> None:
    """With `[model] repo` only that folder and the package are searched, and fetching is no remedy."""
    repo = tmp_path / "repo"
    repo.mkdir()
    assert "fetch" not in refused(Code.MODEL_MISSING, lambda: locate(local, repo=repo), str(repo)).message
    put(repo, "mine", {"abc": member})
    assert locate(local, "mine", repo).folder == repo


@pytest.mark.parametrize("name", ["", "../htdemucs", "a/b", ".hidden", "x" * 101, "a\n"])
def test_a_name_is_never_a_path(models: Path, name: str) -> None:
    """What is not a plain name is `bad-options`, and no model."""
    refused(Code.BAD_OPTIONS, lambda: locate(models, name))
    assert not store.is_known(name, repo=None, models=models)


def test_known_models_are_published_or_there(local: Path) -> None:
    """Options may name Demucs' models, the demo model and those in the folder."""
    put(local, "mine", {})
    for name, known in {"htdemucs_ft": True, "demo": True, "mine": True, "htdemcs": False}.items():
        assert store.is_known(name, repo=None, models=local) is known


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("!!python/object/apply:os.system ['touch marker']", "tag"),
        ("models: [../../x]", "signature"),
        ("models: ['a/b']", "signature"),
        ("models: [12345678]", "quotes"),
        ("models: []", "1 to"),
        ("models: 955717e8", "list"),
        ("[955717e8]", "`models`"),
        ("", "`models`"),
        ("models: ['a']\nextra: 1", "nothing else"),
        ("models: ['a', 'b']\nweights: [[1, 0]]", "2 rows"),
        ("models: ['a', 'b']\nweights: [[1, 0], [1]]", "equal length"),
        ("models: ['a']\nweights: [[1, x]]", "numbers"),
        ("models: ['a']\nweights: [[1, -1]]", "below zero"),
        ("models: ['a']\nweights: [[1, .nan]]", "numbers"),
        ("models: ['a']\nweights: [[1, 0]]", "gets nothing"),
        ("models: ['a']\nweights: 3", "rows"),
        ("models: ['a']\nsegment: 0", "`segment`"),
        ("models: ['a']\nsegment: yes", "`segment`"),
        ("models: ['a']\nsegment: !!timestamp x", "not a bag"),
        ("models: ['a']\nsegment: !!bool x", "not a bag"),
        ("models: &a [*a]", "signature"),
        ("a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{f'*a{n - 1}, ' * 8}]}}\n" for n in range(1, 6)), "merge"),
        ("[" * 20_000, "not a bag"),
        ("#" * 70_000, "longer"),
        ("\x00", "not a bag"),
    ],
)
def test_a_hostile_bag_is_refused(models: Path, text: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bag that is not one is `bad-model`, the file and the reason are named, and nothing in it is run."""
    monkeypatch.chdir(models)
    (models / "htdemucs.yaml").write_text(text)
    refused(Code.BAD_MODEL, lambda: locate(models), "htdemucs.yaml", word)
    assert not (models / "marker").exists()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


NO_FILES = pytest.mark.parametrize("make", [pipe, folder, loop, device], ids=lambda make: make.__name__)


@pytest.fixture
def patience() -> Iterator[None]:
    """Whatever waits is interrupted, and the test fails."""

    def ring(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@NO_FILES
@pytest.mark.parametrize("leaf", ["htdemucs.yaml", f"{SIG}.safetensors"])
@pytest.mark.usefixtures("patience")
def test_what_is_no_file_holds_nobody_up(local: Path, make: Callable[[Path], None], leaf: str) -> None:
    """A pipe, a folder, a link to itself or a device in the place of a model's file is a missing model that is named.

    The configuration is looked at without a wait too: the daemon does that in its main loop.
    """
    given = configuration(local.parent, model={"name": "htdemucs", "repo": str(local)})
    (local / leaf).unlink()
    make(local / leaf)
    refused(Code.MODEL_MISSING, lambda: store.verify(locate(local)), leaf)
    assert configured.checked(given, "where.toml") is given
    rows = {row.name: row for row in listing.rows(repo=None, models=local, allow_pickle=False)}
    assert rows["htdemucs"].state is listing.State.MISSING


@NO_FILES
@pytest.mark.usefixtures("patience")
def test_what_is_no_file_in_the_place_of_an_own_model(models: Path, make: Callable[[Path], None]) -> None:
    """A model that Demucs does not publish is not there then, and the configuration is told of what is."""
    make(models / "mine.yaml")
    (told,) = configured.faults(configuration(models.parent, model={"name": "mine"}))
    assert "there is no such model" in told
    assert "mine.yaml there is not a regular file: put the model's own in its place" in told


@NO_FILES
@pytest.mark.usefixtures("patience")
def test_a_record_that_is_no_file(local: Path, make: Callable[[Path], None]) -> None:
    """Nor does a record or the name of a commit hold anybody up; the record does not count as none."""
    make(local / f"{SIG}.safetensors.sha256")
    make(local / "htdemucs.yaml.commit")
    refused(Code.IO_ERROR, lambda: store.verify(locate(local)), f"{SIG}.safetensors.sha256 cannot be read", "delete it")
    (local / f"{SIG}.safetensors.sha256").rename(local / "aside")
    assert store.pins(locate(local))[0] == ""


@pytest.mark.usefixtures("patience")
def test_a_pipe_in_the_place_of_a_lock(hub: Hub, models: Path) -> None:
    """A fetch does not wait for its other end."""
    (models / ".fetch").mkdir()
    os.mkfifo(models / ".fetch" / "lock")
    assert fetch_from(hub, models).name == "htdemucs"


def test_no_bytes_are_fetched_into_another_file(hub: Hub, models: Path, member: bytes, tmp_path: Path) -> None:
    """A link in the place of a part leads the fetch to no file of somebody else's."""
    (models / ".fetch").mkdir()
    (tmp_path / "other").touch()
    part = models / ".fetch" / f"{SIG}.safetensors.{hashlib.sha256(member).hexdigest()[:16]}.part"
    part.symlink_to(tmp_path / "other")
    refused(Code.IO_ERROR, lambda: fetch_from(hub, models), "cannot be written")
    assert (tmp_path / "other").read_bytes() == b""


def test_a_file_without_end_is_not_hashed(local: Path) -> None:
    """A file that is larger than any model is refused for its size, also where it is only verified."""
    os.truncate(local / f"{SIG}.safetensors", (2 << 30) + 1)
    refused(Code.BAD_MODEL, lambda: store.verify(locate(local)), "larger than any model")
    refused(Code.BAD_MODEL, lambda: load(local), "larger than any model")


def test_the_list_shows_every_model_and_its_state(local: Path) -> None:
    """`demixd models list` has all published models, the demo model and local ones, and hashes nothing."""
    put(local, "broken", {})

    def rows() -> dict[str, listing.Row]:
        return {row.name: row for row in listing.rows(repo=None, models=local, allow_pickle=False)}

    assert set(rows()) == {*catalog.PUBLISHED, "demo", "broken"}
    assert rows()["htdemucs"].state is listing.State.UNRECORDED
    assert rows()["htdemucs"].bytes == (local / f"{SIG}.safetensors").stat().st_size
    assert (rows()["mdx"].state, rows()["mdx"].about) == (listing.State.MISSING, catalog.PUBLISHED["mdx"].about)
    assert rows()["broken"].state is listing.State.BAD
    load(local)
    assert rows()["htdemucs"].state is listing.State.RECORDED
    (local / f"{SIG}.safetensors").unlink()
    assert rows()["htdemucs"].state is listing.State.MISSING
    assert f"{SIG}.safetensors" in rows()["htdemucs"].about


def test_the_list_does_without_a_folder(tmp_path: Path) -> None:
    """Before anything was fetched the list has every published model as missing."""
    rows = listing.rows(repo=None, models=tmp_path / "none", allow_pickle=False)
    assert {row.state for row in rows if row.name != "demo"} == {listing.State.MISSING}


# ---- sha256


def test_a_first_load_records_the_hash(local: Path, member: bytes) -> None:
    """The record of a local file is written at its first load, and `sha256sum -c` accepts it."""
    load(local)
    record = local / f"{SIG}.safetensors.sha256"
    assert record.read_text() == f"{hashlib.sha256(member).hexdigest()}  {SIG}.safetensors\n"
    subprocess.run(["sha256sum", "--check", "--status", record.name], cwd=local, check=True)


def test_verify_and_load_agree(local: Path) -> None:
    """Both find the same hash of the model, and a load alone puts it on record: what is there may not be a model."""
    assert store.verify(locate(local)) == load(local).sha256
    assert store.is_recorded(locate(local))


def test_a_repo_is_never_written_into(local: Path, tmp_path: Path) -> None:
    """Records of a repo lie in the state folder, and `sha256sum` reads them."""
    repo = tmp_path / "repo"
    repo.mkdir()
    put(repo, "mine", {SIG: packed(random_module(1), SMALL)})
    before = sorted(repo.iterdir())
    load(local, "mine", repo)
    load(local)
    assert sorted(repo.iterdir()) == before
    (record,) = tmp_path.glob(f"state/recorded/*/{SIG}.safetensors.sha256")
    subprocess.run(["sha256sum", "--check", "--status", record], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have folders of other users: sudo tests/run")
def test_a_folder_of_another_user_is_never_written_into(local: Path, tmp_path: Path) -> None:
    """The first hash goes into the state folder then, and binds as the one beside the file does; root writes into neither."""
    os.chown(local, 65534, 65534)
    load(local)
    (record,) = tmp_path.glob("state/recorded/*/*")
    assert not list(local.glob("*.sha256"))
    record.write_text("0" * 64)
    refused(Code.BAD_MODEL, lambda: load(local), "has changed", str(record))
    os.chown(tmp_path / "state" / "recorded", 65534, 65534)
    os.chown(record.parent, 65534, 65534)
    record.unlink()
    load(local)
    assert not record.exists()


def test_a_file_that_is_still_being_copied_is_not_recorded(local: Path, member: bytes) -> None:
    """The hash of a file that makes no model is no hash to hold it to: whole, it is loaded."""
    (local / f"{SIG}.safetensors").write_bytes(member[:-1])
    refused(Code.BAD_MODEL, lambda: load(local), "damaged")
    (local / f"{SIG}.safetensors").write_bytes(member)
    load(local)


def test_a_record_is_never_a_link(local: Path, tmp_path: Path) -> None:
    """Whoever may write to the state folder does not lead another user's command to any other file."""
    (tmp_path / "secret").write_text("secret")
    (local / f"{SIG}.safetensors.sha256").symlink_to(tmp_path / "secret")
    assert "secret " not in refused(Code.IO_ERROR, lambda: load(local), "cannot be read").message


@pytest.mark.parametrize("garbage", [b"garbage", None])
def test_a_changed_byte_is_refused_before_it_is_read(local: Path, member: bytes, garbage: bytes | None) -> None:
    """A member that no longer has its recorded hash is refused for that alone, whatever is in it now."""
    load(local)
    changed = garbage or member[:-1] + bytes([member[-1] ^ 1])
    (local / f"{SIG}.safetensors").write_bytes(changed)
    old, new = hashlib.sha256(member).hexdigest(), hashlib.sha256(changed).hexdigest()
    for check in (lambda: load(local), lambda: store.verify(locate(local))):
        refused(Code.BAD_MODEL, check, "has changed", f"{SIG}.safetensors", old, new, "models fetch", ".sha256")


def test_a_broken_record_refuses(local: Path) -> None:
    """A record that makes no sense does not count as none."""
    (local / f"{SIG}.safetensors.sha256").write_bytes(b"\xff")
    refused(Code.BAD_MODEL, lambda: load(local), "has changed")


def test_the_models_hash_is_of_its_content(local: Path, member: bytes) -> None:
    """The hash changes with the weights and the bag, not with the model's name."""
    put(local, "other", {SIG: member})
    put(local, "slower", {SIG: member}, segment=2)
    put(local, "random", {"r1": packed(random_module(1), SMALL)})
    hashes = {name: store.verify(locate(local, name)) for name in ("htdemucs", "other", "slower", "random")}
    assert hashes["htdemucs"] == hashes["other"]
    assert len(set(hashes.values())) == 3


# ---- loading


def test_a_good_file_loads_as_demucs_loads_it(local: Path) -> None:
    """The careful loader and Demucs' own give the same weights, in float32, and the same facts."""
    bag = load(local).model
    theirs = demucs.hf.load_safetensors_model(local / f"{SIG}.safetensors")
    ours = bag.models[0]
    assert same_state(ours, theirs)
    assert next(ours.parameters()).dtype == torch.float32
    assert not bag.training and not ours.training
    assert (bag.sources, bag.samplerate, ours.segment) == (STEMS, 44100, theirs.segment)
    assert isinstance(ours.segment, Fraction)


@pytest.mark.parametrize("klass", [HDemucs, Demucs])
def test_all_of_demucs_classes_load(models: Path, klass: type[torch.nn.Module]) -> None:
    """HDemucs and Demucs load as HTDemucs does, also with arguments by position."""
    module = klass(STEMS, channels=4, depth=3 if klass is Demucs else 6)
    put(models, "mine", {"a": packed(module, {"channels": 4, "depth": module.depth}, args=json.dumps([STEMS]))})
    (ours,) = load(models, "mine").model.models
    assert type(ours) is klass
    assert same_state(ours, demucs.hf.load_safetensors_model(models / "a.safetensors"))


def test_a_bag_keeps_its_weights_and_segment(models: Path, member: bytes) -> None:
    """Weights and segment of the bag reach Demucs' BagOfModels; a member named twice is loaded once."""
    weights = [[1.0, 0, 0, 1], [0, 1, 1, 0], [1, 1, 1, 1]]
    put(models, "two", {"a": member, "b": packed(random_module(1), SMALL)})
    (models / "two.yaml").write_text(yaml.safe_dump({"models": ["a", "b", "a"], "weights": weights, "segment": 2}))
    bag = load(models, "two").model
    assert bag.weights == weights
    assert [model.segment for model in bag.models] == [2, 2, 2]
    assert bag.models[0] is bag.models[2]
    assert not same_state(bag.models[0], bag.models[1])


def test_weights_for_other_stems_are_refused(models: Path, member: bytes) -> None:
    """A bag whose weights are not one number for each stem is `bad-model`."""
    put(models, "mine", {"a": member}, weights=[[1, 1]])
    refused(Code.BAD_MODEL, lambda: load(models, "mine"), "2 stems", "have 4")


@pytest.mark.parametrize("change", [{"sources": [*STEMS[:3], "voice"]}, {"samplerate": 48000}, {"audio_channels": 1}])
def test_members_that_disagree_are_refused(models: Path, member: bytes, change: dict[str, Any]) -> None:
    """Members must have the same stems, rate and channels."""
    put(models, "mine", {"a": member, "b": packed(random_module(1, **change), SMALL | change)})
    refused(Code.BAD_MODEL, lambda: load(models, "mine"), "differ")


HOSTILE_METADATA: dict[str, tuple[dict[str, str], str]] = {
    "a function": ({"klass": "os.system", "args": '["touch marker"]', "kwargs": "{}"}, "os.system"),
    "a class of torch": ({"klass": "torch.nn.Linear", "args": "[1, 1]", "kwargs": "{}"}, "torch.nn.Linear"),
    "a module that prints": ({"klass": "this.s", "args": "[]", "kwargs": "{}"}, "this.s"),
    "another way to the class": ({"klass": "demucs.hf.HTDemucs"}, "demucs.hf.HTDemucs"),
    "a nested class": ({"structure": '{"_class": "os.system"}'}, "diffq"),
    "no JSON": ({"kwargs": "{"}, "cannot be used"),
    "arguments that are a list": ({"kwargs": "[]"}, "metadata"),
    "nesting": ({"kwargs": "[" * 20_000}, "damaged"),
    "an object": ({"kwargs": '{"sources": {"_class": "os.system"}}'}, "no Demucs model needs"),
    "a fraction of nothing": (
        {"kwargs": '{"segment": {"_type": "fraction", "numerator": 1, "denominator": 0}}'},
        "no Demucs model needs",
    ),
    "too large a number": ({"kwargs": '{"channels": 1e300}'}, "no Demucs model needs"),
    "no number": ({"kwargs": '{"segment": NaN}'}, "no Demucs model needs"),
    "an unknown argument": ({"kwargs": '{"sources": ["a"], "karaoke": true}'}, "karaoke"),
    "no stems": ({"kwargs": "{}"}, "make no model"),
}


@pytest.mark.parametrize("name", HOSTILE_METADATA)
def test_hostile_metadata_are_refused(
    models: Path, module: HTDemucs, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file asks for beyond Demucs' classes and plain arguments is `bad-model`, and is not done."""
    monkeypatch.chdir(models)
    metadata, word = HOSTILE_METADATA[name]
    put(models, "mine", {"a": packed(module, SMALL, **metadata)})
    refused(Code.BAD_MODEL, lambda: load(models, "mine"), "a.safetensors", word)
    assert not (models / "marker").exists()
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"channels": 1 << 19}, "larger than its weights"),
        ({"depth": 1 << 19}, "larger than its weights"),
        ({"t_layers": 1 << 19}, "larger than its weights"),
        ({"dconv_depth": 1 << 19}, "larger than its weights"),
        ({"bottom_channels": 8}, "size mismatch"),
        ({"t_layers": 0}, "Unexpected key"),
        ({"sources": ["drums", "bass", "other", "../../x"]}, "stem's name"),
        ({"sources": ["a", "a", "b", "c"]}, "different names"),
        ({"sources": "abcd"}, "different names"),
        ({"samplerate": 1}, "sample rate"),
        ({"segment": 100_000}, "600 s"),
        ({"segment": -1}, "600 s"),
        ({"t_sparse_self_attn": True}, "make no model"),
    ],
)
def test_arguments_must_fit_the_weights(models: Path, module: HTDemucs, change: dict[str, Any], word: str) -> None:
    """A file cannot ask for a model other than the one it has weights for, at once and at no cost."""
    put(models, "mine", {"a": packed(module, SMALL | change)})
    start = time.monotonic()
    refused(Code.BAD_MODEL, lambda: load(models, "mine"), "a.safetensors", word)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("size", [0, 4, 8, 1000, -1000, -1])
def test_a_truncated_file_is_refused(models: Path, member: bytes, size: int) -> None:
    """A member that ends early is `bad-model`."""
    put(models, "mine", {"a": member[:size]})
    refused(Code.BAD_MODEL, lambda: load(models, "mine"), "a.safetensors")


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_refused(models: Path, member: bytes, seed: int) -> None:
    """Whatever bytes the head of a member has, loading it is `bad-model` and nothing else."""
    noise, data = random.Random(seed), bytearray(member)
    for _ in range(20):
        data[noise.randrange(4000)] = noise.randrange(256)
    put(models, "mine", {"a": bytes(data)})
    refused(Code.BAD_MODEL, lambda: load(models, "mine"), "a.safetensors")


# ---- pickles


class Marker:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def pickled(module: torch.nn.Module, path: Path, **changes: Any) -> bytes:
    package = {"klass": type(module), "args": [], "kwargs": SMALL, "state": module.state_dict()}
    torch.save(package | changes, path)
    return path.read_bytes()


def test_a_pickle_is_not_read_unless_allowed(models: Path, tmp_path: Path) -> None:
    """A `.th` file is refused by name, and nothing in it runs."""
    put(models, "mine", {})
    (models / "mine.yaml").write_text("models: [a]")
    (models / "a.th").write_bytes(pickle.dumps(Marker(tmp_path / "marker")))
    refused(Code.BAD_MODEL, lambda: load(models, "mine"), "a.th", "pickle", "allow_pickle", "a.safetensors")
    refused(Code.BAD_MODEL, lambda: load_files(locate(models, "mine", pickles=True), allow_pickle=False), "pickle")
    assert not (tmp_path / "marker").exists()


def test_a_pickle_named_safetensors_does_not_run(models: Path, tmp_path: Path) -> None:
    """A file is read as what its name says, never as what else it might be, also where pickles are allowed."""
    put(models, "mine", {"a": pickle.dumps(Marker(tmp_path / "marker"))})
    refused(Code.BAD_MODEL, lambda: load(models, "mine", pickles=True), "safetensors")
    assert not (tmp_path / "marker").exists()


def test_an_allowed_pickle_loads(models: Path, tmp_path: Path, module: HTDemucs) -> None:
    """With `allow_pickle`, Demucs' own `SIG-CHECKSUM.th` loads, and its checksum is compared."""
    (models / "mine.yaml").write_text("models: [a]")
    data = pickled(module, tmp_path / "a.th")
    good = models / f"a-{hashlib.sha256(data).hexdigest()[:8]}.th"
    good.write_bytes(data)
    assert same_state(load(models, "mine", pickles=True).model.models[0], module)
    good.rename(models / "a-00000000.th")
    refused(Code.BAD_MODEL, lambda: load(models, "mine", pickles=True), "00000000")


def test_an_allowed_pickle_is_still_checked(models: Path, tmp_path: Path, module: HTDemucs) -> None:
    """A pickle of another class, of packed weights, or of no package is `bad-model`."""
    (models / "mine.yaml").write_text("models: [a]")
    for changes, word in (
        ({"klass": torch.nn.Linear}, "Linear"),
        ({"state": {"__quantized": True}}, "diffq"),
        ({"kwargs": SMALL | {"karaoke": 1}}, "karaoke"),
        ({"klass": Marker(tmp_path / "marker")}, "class"),
    ):
        (models / "a.th.sha256").unlink(missing_ok=True)
        (models / "a.th").write_bytes(pickled(module, tmp_path / "a.th", **changes))
        refused(Code.BAD_MODEL, lambda: load(models, "mine", pickles=True), "a.th", word)


def test_safetensors_come_before_pickles(local: Path) -> None:
    """Where both are there the pickle is not looked at."""
    (local / f"{SIG}.th").write_bytes(b"garbage")
    load(local, pickles=True)


def test_two_pickles_for_a_member_are_refused(models: Path) -> None:
    """Which of two files is meant is not guessed."""
    (models / "mine.yaml").write_text("models: [a]")
    for name in ("a.th", "a-12345678.th"):
        (models / name).write_bytes(b"")
    refused(Code.BAD_MODEL, lambda: locate(models, "mine", pickles=True), "several files for a")


# ---- the demo model


def test_the_demo_model_loads(models: Path, tmp_path: Path) -> None:
    """The embedded model loads with four stems at 44.1 kHz, whatever the configured folders, and leaves no record."""
    if not (store.DEMO_FOLDER / "demo.yaml").is_file():
        pytest.skip("the package holds no demo model yet: run its training")
    loaded = load(models, "demo", tmp_path)
    assert (loaded.model.sources, loaded.model.samplerate) == (STEMS, 44100)
    assert store.verify(locate(models, "demo")) == loaded.sha256
    assert list(models.iterdir()) == []
    assert not list(store.DEMO_FOLDER.glob("*.sha256"))


# ---- fetching


def ranges(requests: list[Request]) -> list[str | None]:
    return [request.range for request in requests]


def test_fetch_brings_a_model_that_loads(hub: Hub, models: Path, member: bytes) -> None:
    """A fetched model is whole, has the hub's sha256 on record, tells its progress and loads."""
    told: list[FetchProgress] = []
    files = fetch("htdemucs", models, progress=told.append, endpoint=hub.endpoint)
    assert sorted(path.name for path in models.iterdir()) == [
        ".fetch",
        f"{SIG}.safetensors",
        f"{SIG}.safetensors.sha256",
        "htdemucs.yaml",
        "htdemucs.yaml.commit",
    ]
    assert [path.name for path in (models / ".fetch").iterdir()] == ["lock"]
    assert (models / f"{SIG}.safetensors.sha256").read_text().startswith(hashlib.sha256(member).hexdigest())
    assert (told[-1].file, told[-1].bytes, told[-1].total_bytes) == (f"{SIG}.safetensors", len(member), len(member))
    assert str(told[-1]) == f"Fetching htdemucs: {SIG}.safetensors, 100% of 0.6 MB"
    assert same_state(load_files(files, allow_pickle=False).model.models[0], random_module(0).half().float())


@pytest.mark.daily
def test_the_command_fetches(hub: Hub, tmp_path: Path) -> None:
    """`demixd models fetch htdemucs` ends 0 and says where the model is, converts it, and `verify` agrees with it."""
    config = tmp_path / "demixd.toml"
    config.write_text(f'[paths]\nspool = "{tmp_path}/spool"\nstate = "{tmp_path}/state"\n')
    for command, word in (("fetch", "in "), ("verify", "good, ")):
        code = f"import sys; sys.argv[1:] = ['--config', {str(config)!r}, 'models', '{command}', 'htdemucs']\n"
        process = python(f"{code}from demixd.cli.app import main; main()", HF_ENDPOINT=hub.endpoint)
        said, _ = process.communicate()
        assert process.returncode == 0, said
        assert f"htdemucs: {word}" in said
        if command == "fetch" and converter.is_installed() and not host.has_nvidia():
            assert "htdemucs: converted for OpenVINO in " in said
            (conversion,) = (tmp_path / "state" / "compiled").iterdir()
            assert (conversion / "0.xml").is_file()
    assert (tmp_path / "state" / "models" / "htdemucs.yaml").exists()


@pytest.mark.skipif(not converter.is_installed() or host.has_nvidia(), reason="nothing is converted here")
def test_an_interrupted_command_leaves_no_half_of_a_conversion(hub: Hub, tmp_path: Path) -> None:
    """Ctrl-C while it converts: it ends at once, the model is there, and nothing else."""
    config, compiled = tmp_path / "demixd.toml", tmp_path / "state" / "compiled"
    config.write_text(f'[paths]\nspool = "{tmp_path}/spool"\nstate = "{tmp_path}/state"\n')
    code = f"import sys; sys.argv[1:] = ['--config', {str(config)!r}, 'models', 'fetch', 'htdemucs']\n"
    process = python(f"{code}from demixd.cli.app import main; main()", HF_ENDPOINT=hub.endpoint)
    while not list(compiled.glob(".*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=10)
    assert process.returncode == 1, said
    assert list(compiled.iterdir()) == []
    assert locate(tmp_path / "state" / "models").members


def test_fetch_creates_its_folder(hub: Hub, tmp_path: Path) -> None:
    """The models folder need not exist."""
    assert fetch_from(hub, tmp_path / "a" / "b").members


def test_fetch_tells_the_hub_nothing_and_the_storage_no_token(
    hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user agent names no torch and no caller, no other page is asked for, and a token stays with the hub."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch_from(hub, models)
    assert not any("torch" in request.user_agent or "agent/" in request.user_agent for request in hub.requests)
    assert not any("harness" in request.path for request in hub.requests)
    assert {request.authorization for request in hub.downloads()} == {None}
    assert "Bearer hf_secret" in {request.authorization for request in hub.requests}


def test_a_second_fetch_downloads_nothing(hub: Hub, models: Path) -> None:
    """Members that have the hub's hash are kept."""
    fetch_from(hub, models)
    hub.requests.clear()
    fetch_from(hub, models)
    assert hub.downloads() == []


def test_fetch_repairs_a_changed_member(hub: Hub, models: Path) -> None:
    """The remedy that a changed member is refused with works."""
    fetch_from(hub, models)
    (models / f"{SIG}.safetensors").write_bytes(b"garbage")
    refused(Code.BAD_MODEL, lambda: load(models), "demixd models fetch htdemucs")
    fetch_from(hub, models)
    load(models)


def test_a_stopped_fetch_is_resumed(hub: Hub, models: Path, member: bytes) -> None:
    """What came before a stop is not asked for again, and is not visible under the final name."""

    def stop(told: FetchProgress) -> None:
        if told.file.endswith(".safetensors") and told.bytes > 100_000:
            raise StopProcessingError

    with pytest.raises(StopProcessingError):
        fetch("htdemucs", models, progress=stop, endpoint=hub.endpoint)
    assert [path.name for path in models.iterdir()] == [".fetch"]
    (part,) = models.glob(f".fetch/{SIG}.*.part")
    have = part.stat().st_size
    assert 100_000 < have < len(member)
    fetch_from(hub, models)
    assert ranges(hub.downloads()) == [None, f"bytes={have}-"]
    load(models)


def test_a_killed_fetch_is_resumed(hub: Hub, models: Path, member: bytes) -> None:
    """A process killed in the middle leaves a part that another goes on from, and no lock."""
    hub.stall_after = 200_000
    process = python(FETCH, str(models), HF_ENDPOINT=hub.endpoint)
    while not any(part.stat().st_size == hub.stall_after for part in models.glob(f".fetch/{SIG}.*.part")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert [path.name for path in models.iterdir()] == [".fetch"]
    hub.stall_after = None
    fetch_from(hub, models)
    assert ranges(hub.downloads()) == [None, "bytes=200000-"]
    assert hub.downloads()[1].sent == len(member) - 200_000


def test_a_broken_connection_is_picked_up(hub: Hub, models: Path) -> None:
    """A connection that breaks while bytes come is resumed within the same fetch."""
    hub.cuts = [50_000] * 5
    fetch_from(hub, models)
    assert ranges(hub.downloads()) == [None, *(f"bytes={50_000 * count}-" for count in range(1, 6))]


def test_a_hub_without_ranges_starts_over(hub: Hub, models: Path) -> None:
    """Where the answer to a range is the whole file, it replaces the part."""
    hub.cuts, hub.ignore_range = [50_000], True
    fetch_from(hub, models)
    load(models)


def test_a_connection_that_brings_nothing_is_given_up(hub: Hub, models: Path) -> None:
    """After some tries without a new byte the fetch fails, names the endpoint and the remedy, and keeps its part."""
    hub.cuts = [50_000, 0, 0, 0, 0, 0, 0]
    refused(
        Code.MODEL_MISSING,
        lambda: fetch_from(hub, models),
        hub.endpoint,
        "demixd models fetch htdemucs",
    )
    assert [path.name for path in models.iterdir()] == [".fetch"]
    hub.cuts = []
    fetch_from(hub, models)
    assert hub.downloads()[-1].range == "bytes=50000-"


def test_a_wrong_hash_leaves_nothing(hub: Hub, models: Path) -> None:
    """Bytes with another hash than the hub states are deleted, and the next fetch starts afresh."""
    hub.corrupt = True
    refused(Code.BAD_MODEL, lambda: fetch_from(hub, models), f"{SIG}.safetensors", "another hash", hub.endpoint)
    assert [path.name for path in models.iterdir()] == [".fetch"]
    assert not list(models.glob(f".fetch/{SIG}*"))
    hub.corrupt = False
    fetch_from(hub, models)
    assert ranges(hub.downloads()) == [None, None]


def test_a_hub_that_states_no_sha256_is_refused(hub: Hub, models: Path) -> None:
    """Nothing is taken that cannot be checked."""
    hub.states_hash = False
    refused(Code.MODEL_MISSING, lambda: fetch_from(hub, models), "states no", SIG)
    assert hub.downloads() == []


def test_a_hostile_bag_from_the_hub_gets_no_name(hub: Hub, models: Path) -> None:
    """A bag is checked before anything that it names is asked for."""
    hub.files[REPO, "htdemucs.yaml"] = b"models: [../../x]"
    refused(Code.BAD_MODEL, lambda: fetch_from(hub, models), "signature")
    assert [path.name for path in models.iterdir()] == [".fetch"]


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_a_refusing_hub_is_a_missing_model(hub: Hub, models: Path, status: int) -> None:
    """Whatever the hub answers instead of a file, the sentence has the endpoint, the status and the remedy."""
    hub.status = status
    words = (hub.endpoint, str(status), "demixd models fetch htdemucs", str(models))
    refused(Code.MODEL_MISSING, lambda: fetch_from(hub, models), *words)


def test_a_model_that_the_hub_lacks_is_missing(hub: Hub, models: Path) -> None:
    """A repository that is not there is `model-missing`."""
    refused(Code.MODEL_MISSING, lambda: fetch_from(hub, models, "mdx"), "mdx", "401")


@pytest.mark.usefixtures("hub")
def test_no_hub_is_a_missing_model(models: Path) -> None:
    """Where nobody listens the sentence names the endpoint and the remedy."""
    refused(
        Code.MODEL_MISSING,
        lambda: fetch("htdemucs", models, progress=print, endpoint="http://127.0.0.1:9"),
        "http://127.0.0.1:9",
        "check the network",
        "demixd models fetch htdemucs",
    )


@pytest.mark.usefixtures("hub")
def test_a_machine_without_a_network_is_served_by_hand(models: Path) -> None:
    """The sentence has each file, the address that it is at, and the folder that it goes into."""
    refused(
        Code.MODEL_MISSING,
        lambda: fetch("htdemucs_ft", models, progress=print, endpoint="http://127.0.0.1:9"),
        "get htdemucs_ft.yaml, f7e0c4bc.safetensors, d12395a8.safetensors, 92cfc3b6.safetensors and 04573f0d.safetensors on",
        "each at http://127.0.0.1:9/adefossez/HTDemucs-ft/resolve/main/FILE, ",
        f"and put them into {models}.",
    )


@pytest.mark.parametrize("name", ["htdemcs", "mdx_extra_q", "../x", "someone/htdemucs"])
def test_unknown_models_are_not_asked_for(hub: Hub, models: Path, name: str) -> None:
    """Only Demucs' own names are fetched, and the sentence has them."""
    refused(Code.BAD_OPTIONS, lambda: fetch_from(hub, models, name), name, "htdemucs_ft")
    assert hub.requests == []


def test_offline_makes_no_call(hub: Hub, models: Path) -> None:
    """Under HF_HUB_OFFLINE=1 the reason is that, and the hub of HF_ENDPOINT hears nothing."""
    said, _ = python(FETCH, str(models), HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="1").communicate()
    assert said.startswith("model-missing ") and "HF_HUB_OFFLINE" in said
    assert f"at {hub.endpoint}/adefossez/HTDemucs/resolve/main/FILE, and put them into {models}." in said
    assert hub.requests == []


def test_proxies_are_used(hub: Hub, models: Path) -> None:
    """A fetch goes where HTTP_PROXY says."""
    said, _ = python(FETCH, str(models), HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=hub.endpoint).communicate()
    assert said == ""
    load(models)


def test_two_fetches_at_once_are_one(hub: Hub, models: Path) -> None:
    """The second waits for the first, says so, and finds everything there."""
    told: list[FetchProgress] = []
    first_is_on = threading.Event()
    second_waits = threading.Event()

    def first(_: FetchProgress) -> None:
        first_is_on.set()
        second_waits.wait(10)

    def second(progress: FetchProgress) -> None:
        told.append(progress)
        second_waits.set()

    thread = threading.Thread(
        target=fetch, args=("htdemucs", models), kwargs={"progress": first, "endpoint": hub.endpoint}
    )
    thread.start()
    assert first_is_on.wait(10)
    fetch("htdemucs", models, progress=second, endpoint=hub.endpoint)
    thread.join()
    assert str(told[0]) == "Fetching htdemucs: waiting for another fetch into the folder"
    assert len(hub.downloads()) == 1
    load(models)


def test_no_room_is_no_space(hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that does not fit is not begun."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    refused(Code.NO_SPACE, lambda: fetch_from(hub, models), str(models))
    assert hub.downloads() == []


# ---- pinned


@pytest.fixture
def pinned(hub: Hub, member: bytes, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The catalogue pins htdemucs as the hub has it; its pins, which a test may change."""
    data = {name: content for (_, name), content in hub.files.items()}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
    pinned = catalog.Published(about="pinned", members=(SIG,), commit=COMMIT, sha256=hashes)
    for module in (store, listing, fetching):
        monkeypatch.setattr(module, "PUBLISHED", {**catalog.PUBLISHED, "htdemucs": pinned})
    return pinned.sha256


def test_a_pinned_model_is_fetched_by_its_commit(hub: Hub, models: Path, pinned: dict[str, str]) -> None:
    """Its files come from that commit alone, and the list calls it pinned."""
    files = fetch_from(hub, models)
    assert store.pins(files) == (COMMIT, pinned)
    assert {request.path.split("/")[4] for request in hub.requests if "/resolve/" in request.path} == {COMMIT}
    (row,) = (row for row in listing.rows(repo=None, models=models, allow_pickle=False) if row.name == "htdemucs")
    assert (row.state, row.trust) == (listing.State.RECORDED, "pinned")


@pytest.mark.parametrize("file", ["htdemucs.yaml", f"{SIG}.safetensors"])
def test_another_file_than_the_pinned_one(hub: Hub, models: Path, pinned: dict[str, str], file: str) -> None:
    """It is neither fetched nor loaded, also where it was recorded before; a repo's files are its owner's affair."""
    fetch_from(hub, models)
    pinned[file] = "0" * 64
    refused(Code.BAD_MODEL, lambda: load(models), file, "htdemucs")
    refused(Code.BAD_MODEL, lambda: fetch_from(hub, models), file, "0" * 64)
    repo = models.parent / "repo"
    shutil.copytree(models, repo)
    load(models, repo=repo)


def test_a_model_that_is_not_pinned(hub: Hub, models: Path) -> None:
    """What is printed for it is what the hub had, and the list says that it is trusted since its first use."""
    files = fetch_from(hub, models)
    commit, hashes = store.pins(files)
    assert commit == COMMIT
    assert hashes == {name: hashlib.sha256(data).hexdigest() for (_, name), data in hub.files.items()}
    (row,) = (row for row in listing.rows(repo=None, models=models, allow_pickle=False) if row.name == "htdemucs")
    assert row.trust == "first use"
    (models / "htdemucs.yaml.commit").unlink()
    assert store.pins(files)[0] == ""


# ---- of a configuration


def configuration(folder: Path, **sections: Any) -> config.Config:
    text = f'[paths]\nstate = "{folder}"\nmodels = "{folder}/models"\n' + "".join(
        f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        for section, keys in sections.items()
    )
    return config.parse(text, "x")


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"profiles.x": {"stems": ["vocal"]}}, ["[profiles.x]", '"vocal"', "did you mean vocals?", "instrumental"]),
        ({"profiles.x": {"stems": ["guitar"]}}, ["[profiles.x]", "htdemucs has no such stem"]),
        ({"profiles.x": {"stems": ["guitar"], "model": "htdemucs_6s"}}, []),
        ({"defaults": {"stems": ["no_bas"]}}, ["[defaults]", "did you mean no_bass?"]),
        ({"defaults": {"stems": ["guitar"]}, "model": {"name": "auto"}}, []),
        ({"defaults": {"naming": "ni-stems", "format": "m4a"}}, []),
        ({"defaults": {"naming": "ni-stems"}, "model": {"name": "auto"}}, []),
        (
            {"defaults": {"naming": "ni-stems"}, "profiles.x": {"model": "htdemucs_6s"}},
            [
                "[profiles.x] naming",
                "such a file holds drums, bass, other, vocals, and htdemucs_6s has ",
                "take htdemucs",
            ],
        ),
        ({"model": {"name": "htdemuc"}}, ["[model] name", '"htdemuc"', "did you mean htdemucs?"]),
        ({"model": {"name": "mdx_q"}}, ["[model] name", "packed by diffq", "use mdx"]),
        ({"profiles.x": {"model": "mdx_extr"}}, ["[profiles.x] model", "did you mean mdx_extra?"]),
        ({"model": {"name": "nothing_like_it"}}, ["[model] name", '"nothing_like_it"', "there is no such model"]),
        ({"profiles.x": {"model": "nothing_like_it"}}, ["[profiles.x] model", "there is no such model"]),
        ({"model": {"name": "here"}}, []),
        ({"model": {"name": "demo"}, "profiles.x": {"stems": ["piano"]}}, ["demo has no such stem"]),
        ({"model": {"name": "htdemuc", "repo": "/not/mounted"}}, []),
        ({"model": {"name": "here"}, "profiles.x": {"stems": ["kazoo"]}}, ["here has no such stem"]),
    ],
)
def test_names_and_stems_of_a_configuration(
    tmp_path: Path, local: Path, member: bytes, sections: Any, words: list[str]
) -> None:
    """A model that there is not, and a stem that a known model lacks, are mistakes; what is not known is none."""
    put(local, "here", {SIG: member})
    given = configuration(tmp_path, **sections)
    found = list(configured.faults(given))
    assert bool(found) is bool(words)
    assert all(word in found[0] for word in words)
    if words:
        with pytest.raises(ConfigError):
            configured.checked(given, "where.toml")
    else:
        assert configured.checked(given, "where.toml") is given


@pytest.mark.parametrize(
    ("sections", "places"),
    [
        ({"defaults": {"clip": "none"}, "profiles.x": {"format": "wav", "bit_depth": "float"}}, ["[defaults]"]),
        ({"defaults": {"bit_depth": "float"}, "profiles.x": {"clip": "none"}}, ["[profiles.x]"]),
        ({"profiles.x": {"clip": "none", "format": "wav"}}, ["[profiles.x]"]),
        ({"profiles.x": {"clip": "none", "format": "wav", "bit_depth": "float"}}, []),
    ],
)
def test_options_that_suit_only_some_songs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sections: dict[str, dict[str, Any]], places: list[str]
) -> None:
    """Those are no mistake, for the songs' own formats decide; whoever starts with them is warned, with the remedy."""
    given = configuration(tmp_path, **sections)
    assert configured.checked(given, "where.toml") is given
    assert [record.levelname for record in caplog.records] == ["WARNING"] * len(places)
    for place, said in zip(places, caplog.messages, strict=True):
        assert said.startswith(f'where.toml: {place} clip = "none" needs float samples')
        assert 'fails as bad-options; set format = "wav" and bit_depth = "float", or clip = "joint"' in said


def test_where_a_model_may_still_come_from(tmp_path: Path) -> None:
    """A folder that the configuration names may be a share that is away; the one in the state folder is not."""
    named = configuration(tmp_path, model={"name": "mine"})
    assert not configured.lacks("mine", named)
    (tmp_path / "models").mkdir()
    assert not configured.lacks("mine", named)
    (tmp_path / "models" / "other.yaml").touch()
    assert configured.lacks("mine", named)
    assert configured.lacks("mine", config.Config(paths=Paths(state=str(tmp_path / "state"))))


def test_a_nearly_right_name_is_told(models: Path) -> None:
    """A missing model whose name is nearly one that is published gets that name for a remedy."""
    refused(Code.MODEL_MISSING, lambda: locate(models, "htdemuc"), "did you mean htdemucs?")
