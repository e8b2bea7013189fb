"""What a configuration holds that others must not read, and what only looks like it."""

from __future__ import annotations

import pytest

from pipeline.config.secrets import has_secrets, looks_secret, without_secrets
from pipeline.validation.loading import dump_without_secrets, parse_config

OWN = {"backbone": "torchvision.models:resnet18", "output": "avgpool"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("api_key", "apikey", "WANDB_API_KEY", "apiKey", "access_key_id", "private-key",
                                    "password", "passwd", "pwd", "client_secret", "token", "authToken", "credentials")),
        *((name, False) for name in ("num_tokens", "class_tokens", "key_dim", "num_keys", "hidden_dim", "author",
                                     "path", "patch_size", "pathology", "monkey", "keys", "kind")),
    ],
)  # fmt: skip
def test_a_secret_is_known_by_its_name(name: str, expected: bool) -> None:
    assert looks_secret(name) is expected


def test_nothing_of_a_trackers_options_is_shown_but_their_names() -> None:
    config = parse_config({"trackers": [{"kind": "a:B", "options": {"entity": "us", "more": {"x": ["hush"]}}}]})
    assert without_secrets(config)["trackers"][0]["options"] == {"entity": "(not shown)", "more": "(not shown)"}
    assert "hush" not in dump_without_secrets(config)
    assert has_secrets(config)


def test_a_secret_is_found_wherever_it_stands() -> None:
    options = {"weights": "s3://me:hush@host/w", "auth": {"user": "hush"}, "num_tokens": 3, "token": 7, "name": "said"}
    config = parse_config({"model": {**OWN, "options": options}}, build=False)
    found = without_secrets(config)["model"]["options"]
    assert found == {
        "weights": "s3://(not shown)@host/w", "auth": {"user": "(not shown)"}, "num_tokens": 3, "token": 7,
        "name": "said",
    }  # fmt: skip
    assert has_secrets(config)
    assert not has_secrets(parse_config({"trackers": ["tensorboard"]}))
