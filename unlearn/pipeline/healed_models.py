"""Healed models: read by folder or from the Hub, and published there."""

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unlearn.core.files import hash_file
from unlearn.models.adapted import release_logits
from unlearn.models.trusted_factories import build_card_network
from unlearn.storage import hub
from unlearn.storage.hub_card import write_model_card
from unlearn.storage.model_card import read_card, read_card_file
from unlearn.storage.user_checkpoint import match_checkpoint

log = logging.getLogger(__name__)


def load_folder(folder: Path, trust: Sequence[str]) -> nn.Module:
    """Return the healed model of a run's folder, in eval mode, with its card as ``.card``.

    Args:
        folder: Folder with card and weights: of a run, or as it is published on the Hub.
        trust: The caller's own packages whose functions may build the network.

    Raises:
        ValueError: If there is no such model, its file does not match its card, or the card names
            code that is not trusted.
    """
    published = folder / hub.CONFIG
    if published.is_file() and not (folder / "card.json").exists():
        card = read_card_file(published)
    else:
        card = read_card(folder)
    return _build_model(card, folder / card["file"], trust)


def load_from_hub(name: str, trust: Sequence[str]) -> nn.Module:
    """Return a healed model of the Hub, ``hf://user/name``; see ``load_folder``."""
    card = read_card_file(hub.download_file(name, (hub.CONFIG,), "model"))
    return _build_model(card, hub.download_file(name, (card["file"],), "model"), trust)


def _build_model(card: dict[str, Any], path: Path, trust: Sequence[str]) -> nn.Module:
    if not path.is_file() or hash_file(path) != card["sha256"]:
        raise ValueError(f"{path} does not match the SHA-256 in its card")
    shape = {key: card["input"][key] for key in ("in_channels", "image_size")}
    network: Any = build_card_network(
        card["model"], trust, **shape, num_classes=len(card["classes"])
    )
    match_checkpoint(path, network, f"the model of {card['run_id']}").load_into(network)
    release_logits(network)  # its own outputs, as its code expects them
    network.card = card
    return network.eval()


def publish_model(
    config: Mapping[str, Any], card: Mapping[str, Any], state: Mapping[str, Tensor]
) -> str:
    """Publish a healed model on the Hub, or write it to a folder; return where it is.

    Args:
        config: Config of the run: ``hub``, ``hub_private``, ``hub_license``.
        card: The card of the model.
        state: Parameters and buffers by the network's names, on the CPU.

    Raises:
        ValueError: If it cannot be published.
    """
    from safetensors.torch import save_file

    target = str(config["hub"])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = folder / hub.WEIGHTS
        save_file({k: v.contiguous().clone() for k, v in state.items()}, path)
        own = {**card, "file": path.name, "sha256": hash_file(path), "library_name": "unlearn"}
        (folder / hub.CONFIG).write_text(json.dumps(own, indent=2), encoding="utf-8")
        text = write_model_card(own, name=target, license=config.get("hub_license"))
        (folder / hub.README).write_text(text, encoding="utf-8")
        where = hub.push_folder(
            folder, target, private=bool(config["hub_private"]), message=f"Run {card['run_id']}"
        )
    log.info("healed model published: %s", where)
    return where
