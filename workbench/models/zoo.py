"""The one place where names become networks."""

from collections.abc import Mapping

from pydantic import BaseModel

from workbench.models.encoders import EncoderConfig
from workbench.models.forecaster import ForecasterConfig
from workbench.models.language import LanguageModelConfig

MODELS: Mapping[str, type[BaseModel]] = {
    "forecaster": ForecasterConfig,
    "language": LanguageModelConfig,
    "encoder": EncoderConfig,
}


def config_from(values: Mapping) -> BaseModel:
    """Read a model's configuration from plain values, as a checkpoint stores it.

    Raises:
        ValueError: unknown kind of model.
    """
    kind = values.get("kind")
    if kind not in MODELS:
        raise ValueError(f"model kind {kind!r} is unknown; this version knows {', '.join(MODELS)}.")
    return MODELS[kind].model_validate(values)
