"""A pretrained model of the library transformers, from a local folder or the hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.model.pretrained.libraries import library, quiet

log = logging.getLogger("fedjoint.model")

#: The extra of fedjoint that installs transformers and peft.
EXTRA = "hf"

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def load_pretrained(path: str, *, weights: bool) -> nn.Module:
    """Return the model in ``path``, float32, without the head of the task it was trained for.

    No code that comes with a model is run, and no pickle is read: weights are safetensors.

    Args:
        path: a folder that ``save_pretrained`` wrote, or a name on the Hugging Face hub.
        weights: whether to load them, too; else PyTorch's generator draws them.

    Raises:
        UserError: there is no such model, its weights are of another one, or are pickled.
    """
    transformers = library("transformers", EXTRA)
    local = check_folder(path)
    if local:
        _check_files(path, weights=weights)
    known = {"trust_remote_code": False, "local_files_only": local}
    # With these operations clients train as one batched program; others have no batching rule.
    how = {"dtype": torch.float32, "attn_implementation": "eager"}
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(path, **known)
            _check_config(path, config)
            if not weights:
                return transformers.AutoModel.from_config(config, **how)
            model, loaded = transformers.AutoModel.from_pretrained(
                path,
                config=config,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
                **how,
                **known,
            )
    except UserError:
        raise
    except ANYTHING as error:  # whatever the library may raise
        if "trust_remote_code" in str(error):
            raise UserError(f"{path}: it comes with code of its own, which is not run") from None
        where = "" if local else "no such folder, nor to be had from the hub: "
        raise UserError(f"{path}: {where}{said(error)}") from error
    _check_loaded(path, loaded)
    return model


def check_folder(path: str) -> bool:
    """Say whether ``path`` is a local folder; else it may be a name on the hub.

    Raises:
        UserError: it cannot be either.
    """
    if path.strip() and Path(path).is_dir():
        return True
    if path.startswith(("/", ".", "~")) or path.count("/") > 1 or not path.strip():
        raise UserError(f"{path!r}: no such folder; give one that save_pretrained wrote")
    return False


def _check_files(path: str, *, weights: bool) -> None:
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        raise UserError(f"{path}: no {CONFIG} there; give a folder that save_pretrained wrote")
    if not weights or any(folder.glob("*.safetensors")):
        return
    pickled = [file.name for end in ("*.bin", "*.pt", "*.pth") for file in folder.glob(end)]
    if pickled:
        raise UserError(
            f"{path}: the weights there are pickled ({pickled[0]}), and reading a pickle can run "
            "any code: write them again as safetensors, by save_pretrained"
        )
    raise UserError(
        f"{path}: no {WEIGHTS} there; give a folder that save_pretrained wrote, or set weights = "
        "false to begin with random ones"
    )


def _check_config(path: str, config: Any) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"{path}: {config.model_type} is an encoder with a decoder, which reads two texts: "
            "give an encoder or a decoder alone"
        )
    if hasattr(config, "use_cache"):
        config.use_cache = False  # of what a decoder has read before: nothing, here


def _check_loaded(path: str, loaded: Mapping[str, Any]) -> None:
    """Refuse weights of another model; say what is left out.

    The pooler is the lowest layer of a task's head, of which no feature depends.
    """
    wrong = [
        f"{name} is {tuple(has)}, and {tuple(wanted)} by its {CONFIG}"
        for name, has, wanted in sorted(loaded["mismatched_keys"])
    ]
    missing = sorted(n for n in loaded["missing_keys"] if not n.startswith("pooler."))
    wrong += [f"{name} is not in its weights" for name in missing]
    if wrong:
        more = f", and {len(wrong) - 1} more" if wrong[1:] else ""
        raise UserError(f"{path}: {wrong[0]}{more}: give config and weights of one model")
    unused = sorted(loaded["unexpected_keys"])
    if unused:
        log.info("%s: not used are %d tensors, such as %s", path, len(unused), unused[0])
