"""The JSON of the API, as OpenAPI describes it."""

from typing import Any

from pydantic import BaseModel, Field


class Score(BaseModel):
    """One class of an answer."""

    label: str
    index: int = Field(ge=0, description="The class's place in the model.")
    probability: float = Field(ge=0, le=1, description="Calibrated by the model's temperature.")


class Timing(BaseModel):
    """Milliseconds that one picture took in each stage."""

    wait: float = Field(description="In the queues of server and worker.")
    decode: float = Field(description="Reading, decoding, resizing.")
    network: float = Field(description="Its share of its batch's time in the network.")


class Answer(BaseModel):
    """One picture's answer: classes in falling order, or the reason why there are none."""

    path: str | None = Field(description="The name that the client gave.")
    predictions: list[Score]
    error: str | None
    abstained: bool = Field(description="The likeliest class is less probable than the threshold: none of these.")
    timing: Timing | None = None
    preview: str | None = Field(None, description="What the network saw, a PNG as data URI; where it was asked for.")


class ModelLine(BaseModel):
    """One model of the list."""

    name: str
    variant: str = Field(description="The network.")
    classes: int
    engine: str
    explains: bool = Field(description="Whether it has heat maps; an exported model has none.")


class Paper(BaseModel):
    """The paper that describes a network."""

    title: str
    authors: str
    venue: str
    year: int
    arxiv: str


class Calibration(BaseModel):
    """How logits become probabilities."""

    temperature: float
    threshold: float | None


class Card(BaseModel):
    """All that a model says of itself."""

    name: str
    variant: str
    family: str | None
    paper: Paper | None
    idea: str | None
    parameters: int | None = Field(description="Of the network with these classes, where that is known.")
    multiply_adds: int | None
    input_size: list[int] = Field(description="Height, width, channels of what the network sees.")
    classes: list[str]
    preprocessing: str
    calibration: Calibration
    metrics: dict[str, Any]
    licence: str | None
    provenance: dict[str, Any]
    created: str
    loaded: str = Field(description="When the server opened it, in UTC.")
    engine: str
    explains: bool


class CatalogueLine(BaseModel):
    """One network of the catalogue."""

    name: str
    family: str
    parameters: int
    multiply_adds: int | None
    input_size: int
    classes: int
    published: list[dict[str, Any]]
    weights: list[dict[str, Any]]


class Family(BaseModel):
    """A family of networks: its paper and idea."""

    family: str
    title: str
    idea: str
    paper: Paper


class Catalogue(BaseModel):
    """Every network that Taxonet has."""

    families: list[Family]
    networks: list[CatalogueLine]


class Health(BaseModel):
    """Whether the server lives, or is ready."""

    status: str


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="One sentence.")
