"""Everything an admin can set, read once from the environment (`SECOND_LOOK_*`) or a `.env` file.

Secrets may also lie in files of a folder named by `SECOND_LOOK_SECRETS_DIR`, one file a setting, as container
platforms mount them.
"""

import ipaddress
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from backend.learning.config import LearningConfig
from backend.segmentation.config import SegmentationConfig
from tasks.addresses import AddressPolicy
from tasks.ranking.hybrid import weights_of

TUNABLE = frozenset(
    {
        *("batch_size", "head_hours", "retrain_after", "gate_level"),
        *("preset", "uncertainty", "disagreement_threshold", "suspects", "phrases", "mode", "daily_limit"),
        *("pixel_uncertainty", "patches", "patch_size"),
        *("stop", "stop_uncertainty", "budget_annotations", "budget_hours"),
    }
)
"""What an admin may also set per project, in the extra parameters of its ML backend."""


class Settings(BaseSettings):
    """Settings of one backend; each field is the variable `SECOND_LOOK_<NAME>`, its description the documentation."""

    model_config = SettingsConfigDict(
        env_prefix="SECOND_LOOK_",
        env_file=".env",
        extra="ignore",
        secrets_dir=os.environ.get("SECOND_LOOK_SECRETS_DIR"),
    )

    label_studio_url: str = Field("http://localhost:8080", description="Where the backend reaches Label Studio")
    label_studio_public_url: str = Field(
        "",
        description="Where people reach it, if that is another address (its LABEL_STUDIO_HOST): images of tasks that"
        " name it are asked for at LABEL_STUDIO_URL",
    )
    label_studio_token: SecretStr = Field(
        SecretStr(""), description="A personal access token of Label Studio (a legacy token works where enabled)"
    )
    ca_file: str = Field(
        "", description="Certificates (PEM) that Label Studio's TLS certificate is checked by; empty: the public ones"
    )
    state_dir: Path = Field(Path("second-look-state"), description="Folder of models, image cache and SQLite files")
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in the state folder")
    migrations_url: str = Field(
        "",
        description="The same PostgreSQL under the role that owns the tables, for migrations; then the role of the"
        " database URL cannot change what the ledger holds. Empty: the database URL",
    )
    redis_url: str = Field("", description="Redis that wakes the worker; empty: a SQLite file in the state folder")

    host: str = Field("127.0.0.1", description="Address the backend listens on; others than loopback need a password")
    port: int = Field(9090, ge=1, le=65535, description="Port the backend listens on")
    public_url: str = Field(
        "", description="Address at which Label Studio reaches the backend; empty: http://host:port"
    )
    username: str = Field("second-look", description="Basic-auth user that Label Studio sends")
    password: SecretStr = Field(SecretStr(""), description="Basic-auth password that Label Studio sends")
    web_workers: int = Field(1, ge=1, description="gunicorn processes")
    web_threads: int = Field(8, ge=1, description="Threads of each gunicorn process")
    max_body_mb: int = Field(64, ge=1, description="Largest request body in MB; 64 holds some 12,000 tasks to predict")
    log_format: Literal["console", "json"] = Field("console", description="How log lines are written")

    backbone: str = Field("efficientnet_b0", description="Any timm model name")
    weights: str = Field(
        "hub",
        description="hub (timm's ImageNet weights), scratch, or the path of a .safetensors file that was trained on"
        " none of the project's labels",
    )
    image_size: int = Field(224, ge=32, description="Side in pixels to which images are brought")
    mode: Literal["frozen", "full"] = Field(
        "frozen", description="frozen: heads on cached embeddings; full: backbones trained anew each cycle"
    )
    corrected_share: float = Field(
        0.03,
        gt=0,
        le=1,
        description="Share of the labels, by the controls' weights, from which on corrections have frozen backbones"
        " that were trained from scratch trained anew",
    )
    folds: int = Field(5, ge=2, le=20, description="Folds of the cross-fit (K)")
    head_seeds: int = Field(3, ge=1, description="How often the heads of a fold are fitted, on resampled rows")
    epochs: int = Field(12, ge=1, description="Epochs of a backbone's training")
    seed: int = Field(0, description="Seed of folds, training and random slots")

    unet_steps: int = Field(
        300, ge=1, description="Training steps of each of the U-Nets that learn masks, however many images there are"
    )
    crop_size: int = Field(
        256, ge=32, multiple_of=32, description="Side in pixels of what a U-Net sees in a training step"
    )
    pixel_uncertainty: Literal["entropy", "cross_entropy", "mutual_information"] = Field(
        "entropy",
        description="Measure of a pixel's uncertainty: entropy of the members' mean, cross-entropy of the members"
        " against it (UGA's), or what they disagree about",
    )
    patches: int = Field(5, ge=0, description="Rectangles on the most uncertain patches of an image; 0: none")
    patch_size: int = Field(64, ge=8, description="Side in pixels of these patches")

    preset: str = Field(
        "auto",
        description="Weights of uncertainty, disagreement and diversity: document (0.5/0.3/0.2), find-errors"
        " (0.1/0.8/0.1), your own written like these, or auto: find-errors where tasks carry current labels",
    )
    uncertainty: Literal["entropy", "margin", "least_confident", "variance", "bald"] = Field(
        "entropy", description="Measure of uncertainty"
    )
    acquisition: str = Field(
        "", description="An acquisition function of one's own, `module:function`, in the hybrid's place; empty: none"
    )
    disagreement_threshold: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Below this probability, and where the prediction differs, a label on record is a suspect",
    )
    suspects: Literal["keep", "down-weight", "drop"] = Field(
        "keep",
        description="What labels that look wrong, and that nobody has reviewed, count in training: as others, half, or"
        " nothing; the last two take 3 folds and longer fits",
    )
    random_slots: bool = Field(
        True, description="Draw part of the queue at random (control arm, hold-out), from which honest figures come"
    )
    batch_size: int = Field(100, ge=1, description="Tasks of one batch; at least three batches are published")
    head_hours: float = Field(2.0, ge=0, description="Hours of work to publish, at the annotators' own pace")
    retrain_after: int = Field(
        0, ge=0, description="New or changed annotations until a training; 0: the larger of 50 and 0.5 % of the labels"
    )
    gate_level: float = Field(
        0.95,
        ge=0.5,
        le=1,
        description="A new model is refused where it does worse than the one in force in more than this share of the"
        " hold-out's resamples; 0.5: it must seem at least as good, 1: none is refused",
    )
    stop: Literal["advise", "auto"] = Field(
        "advise",
        description="What happens once enough is reviewed: advise says so in status and the report, auto also ends the"
        " trainings; the order goes on",
    )
    stop_uncertainty: float = Field(
        0.0, ge=0, lt=1, description="Enough is reviewed when the mean uncertainty of the rest is below this; 0: never"
    )
    budget_annotations: int = Field(0, ge=0, description="Enough is reviewed after so many annotations; 0: no budget")
    budget_hours: float = Field(
        0.0, ge=0, description="Enough is reviewed after so many hours of lead time, of all people; 0: no budget"
    )
    daily_limit: int = Field(
        0, ge=0, description="Answers of one annotator in a day (UTC) beyond which an alarm names them; 0: none"
    )
    task_lock_hours: float = Field(
        24.0, ge=0, description="Label Studio's TASK_LOCK_TTL: older versions are deleted only after it"
    )
    poll_seconds: float = Field(30.0, gt=0, description="How often Label Studio is asked for changes unprompted")
    phrases: str = Field("en", description="Language of the reasons, or the path of a TOML file of phrases")

    image_cache_gb: float = Field(10.0, gt=0, description="Bound of the image cache on disk")
    max_image_mb: int = Field(50, ge=1, description="Largest image file that is read")
    max_megapixels: float = Field(100.0, gt=0, description="Largest image that is decoded, in million pixels")
    image_hosts: str = Field(
        "*",
        description="Hosts beside Label Studio that images may come from: names, *.example.org, or * for all;"
        " separated by commas",
    )
    image_private_networks: str = Field(
        "",
        description="Networks off the public internet that those hosts may lie in, such as 10.1.0.0/16; separated by"
        " commas",
    )

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{(self.state_dir / 'second-look.db').resolve()}"

    @property
    def url(self) -> str:
        """Where Label Studio reaches this backend, without a trailing slash."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def image_policy(self) -> AddressPolicy:
        """Where images may come from, beside Label Studio."""
        return AddressPolicy.parse(self.image_hosts, self.image_private_networks)

    @field_validator("preset")
    @classmethod
    def _preset(cls, value: str) -> str:
        weights_of(value, recorded=True)
        return value

    @model_validator(mode="after")
    def _folds_for_suspects(self) -> Self:
        if self.suspects != "keep" and self.folds < 3:
            raise ValueError(
                f"suspects={self.suspects} takes at least 3 folds, not {self.folds}: who is a suspect is decided by a"
                " model that saw neither the label nor what is predicted later"
            )
        return self

    @field_validator("image_hosts")
    @classmethod
    def _hosts(cls, value: str) -> str:
        AddressPolicy.parse(value, "")
        return value

    @field_validator("image_private_networks")
    @classmethod
    def _networks(cls, value: str) -> str:
        AddressPolicy.parse("", value)
        return value

    @property
    def learning(self) -> LearningConfig:
        """What the learning core needs of these settings."""
        return LearningConfig(
            backbone=self.backbone,
            weights=self.weights,
            image_size=self.image_size,
            mode=self.mode,
            folds=self.folds,
            head_seeds=self.head_seeds,
            epochs=self.epochs,
            seed=self.seed,
            corrected_share=self.corrected_share,
        )

    @property
    def segmentation(self) -> SegmentationConfig:
        """What learning masks needs of these settings; a tile has twice the side of a crop."""
        return SegmentationConfig(
            backbone=self.backbone,
            weights=self.weights,
            crop=self.crop_size,
            tile=2 * self.crop_size,
            folds=self.folds,
            steps=self.unet_steps,
            seed=self.seed,
        )

    def tuned(self, extra_params: Mapping[str, Any]) -> "Settings":
        """These settings with what a project's ML backend sets in its extra parameters.

        Parameters that are none of TUNABLE are somebody else's. Raises ValueError, naming the parameter, for a value
        that is not allowed.
        """
        known = {name: value for name, value in extra_params.items() if name in TUNABLE}
        if not known:
            return self
        try:
            return type(self).model_validate(self.model_dump() | known)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"extra parameter {first['loc'][0]!r}: {first['msg']}") from error

    def listens_beyond_loopback(self) -> bool:
        """Whether other machines can reach the backend (a host name other than localhost counts as yes)."""
        if self.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
