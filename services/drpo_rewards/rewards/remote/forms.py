"""The forms of a request that other projects' reward servers take."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, replace
from typing import Any, Literal

from drpo_rewards.errors import ConfigError

Body = Literal["json", "multipart", "pickle"]


@dataclass(frozen=True)
class Form:
    """How pictures travel to a service, and scores back.

    Attributes:
        body: "json" with pictures in base64; "multipart" with a file per picture, and the request as JSON beside them;
            or "pickle" with the bytes of pictures.
        path: appended to the address.
        request: the template of the request, see `templates.fill`.
        answer: where the scores are in the answer, see `templates.find`.
        image: the format of pictures, "png" or "jpeg".
        images_field, request_field: the names of the parts of a multipart body.
        needs_metadata: whether the service scores nothing without GenEval's metadata.
    """

    body: Body
    path: str
    request: Any
    answer: str
    image: Literal["png", "jpeg"] = "png"
    images_field: str = "images"
    request_field: str = "request"
    needs_metadata: bool = False


FORMS = {
    "json": Form("json", "", {"prompts": "{prompts}", "images": "{images}", "metadata": "{metadatas}"}, "/scores"),
    "multipart": Form("multipart", "", {"prompts": "{prompts}", "metadata": "{metadatas}"}, "/scores"),
    # X-GenGroup/Flow-Factory, reward_server/example_server.py
    "flow_factory": Form("json", "/compute", {"prompts": "{prompts}", "images": "{images}"}, "/rewards"),
    # Tencent-Hunyuan/UniRL, unirl/reward/remote.py; `reward` is the name of a reward of that service
    "unirl": Form(
        "json",
        "/score",
        {
            "protocol_version": "1",
            "requests": {
                "each": {
                    "history": [{"text": "{prompt}", "image_b64": "{image}"}],
                    "required_rewards": ["REWARD"],
                    "metadata": "{metadata}",
                }
            },
        },
        "/results/*/REWARD/*",
        image="jpeg",
    ),
    # yifan123/reward-server: app_deqa.py and the servers like it, which take pictures and prompts
    "flow_grpo": Form("pickle", "/", {"images": "{images}", "prompts": "{prompts}"}, "/outputs", image="jpeg"),
    # yifan123/reward-server, app_geneval.py
    "flow_grpo_geneval": Form(
        "pickle",
        "/",
        {"images": "{images}", "meta_datas": "{metadatas}", "only_strict": False},
        "/scores",
        image="jpeg",
        needs_metadata=True,
    ),
}


def choose_form(name: str, reward: str | None, changes: dict[str, Any]) -> Form:
    """Return a form by its name, with the settings that the options change.

    Raises:
        ConfigError: there is no such form, or it needs the name of a reward.
    """
    if name not in FORMS:
        raise ConfigError(f"remote: no form {name!r}; known are {', '.join(FORMS)}")
    form = FORMS[name]
    if name == "unirl":
        if not reward:
            raise ConfigError("remote: the form unirl needs `reward`, the name of the reward at that service")
        form = replace(form, request=_name_reward(form.request, reward), answer=form.answer.replace("REWARD", reward))
    elif reward:
        raise ConfigError(f"remote: `reward` is for the form unirl, not for {name}")
    return replace(form, **{key: value for key, value in changes.items() if value is not None})


def _name_reward(template: Any, reward: str) -> Any:
    if isinstance(template, dict):
        return {key: _name_reward(value, reward) for key, value in template.items()}
    if isinstance(template, list):
        return [_name_reward(value, reward) for value in template]
    return reward if template == "REWARD" else template


class _Numbers(pickle.Unpickler):
    """Reads plain data and NumPy's numbers, and refuses everything that would import or call something else."""

    allowed = frozenset(
        (f"numpy{core}{module}", name)
        for core, module, name in [
            ("", "", "dtype"),
            ("", "", "ndarray"),
            *(
                (core, ".multiarray", name)
                for core in ("._core", ".core")
                for name in ("scalar", "_reconstruct", "_frombuffer")
            ),
            ("._core", ".numeric", "_frombuffer"),
            ("", "", "float64"),
        ]
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"the answer asks for {module}.{name}")
        return super().find_class(module, name)


def read_pickle(content: bytes) -> Any:
    """Read an answer in pickle. Anything but plain data and NumPy's numbers is refused.

    Raises:
        ValueError: it cannot be read, or asks for more.
    """
    try:
        return _Numbers(io.BytesIO(content)).load()
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"{type(error).__name__}: {error}") from None
