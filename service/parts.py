"""Schemas of an influence in parts; importing them loads neither torch nor faiss."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ModuleKind = Literal["attention", "mlp", "other"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenInfluence(_Part):
    """What one token contributes to the influence of a passage."""

    start: int = Field(ge=0, description="First character of the token.", examples=[24])
    end: int = Field(ge=1, description="One past its last character.", examples=[31])
    influence: float = Field(description="Its part, in the unit of the influence.", examples=[3.2])


class LayerInfluence(_Part):
    """What one layer contributes to the influence of a passage."""

    layer: str = Field(
        description="Name of the layer in the model.", examples=["layers.3.mlp.up_proj"]
    )
    kind: ModuleKind = Field(description="The kind of module that it is in.", examples=["mlp"])
    influence: float = Field(description="Its part, in the unit of the influence.", examples=[0.7])


class HitExplanation(_Part):
    """The influence of a hit in parts; each way of splitting adds up to the influence."""

    tokens_elsewhere: float = Field(
        description=(
            "Of the passage, what belongs to none of the hit's tokens: words of a chat template, "
            "ends of turns. With the tokens it is the influence."
        ),
        examples=[0.1],
    )
    response: tuple[TokenInfluence, ...] = Field(
        description="The tokens of the response that the passage bears on; its characters.",
        examples=[[{"start": 24, "end": 31, "influence": 3.1}]],
    )
    alternative: tuple[TokenInfluence, ...] | None = Field(
        description="Those of the alternative, of a contrast; null otherwise.", examples=[None]
    )
    response_elsewhere: float = Field(
        description=(
            "What belongs to none of these, such as the prompt. With the tokens of response and "
            "alternative it is the influence."
        ),
        examples=[0.2],
    )
    kinds: dict[ModuleKind, float] = Field(
        description="Parts of attention, MLP and everything else; they are the influence.",
        examples=[{"attention": 1.1, "mlp": 2.1, "other": 0.0}],
    )
    layers: tuple[LayerInfluence, ...] = Field(
        description="Parts of the layers, in the order of the model; they are the influence.",
        examples=[[{"layer": "layers.3.mlp.up_proj", "kind": "mlp", "influence": 0.7}]],
    )
