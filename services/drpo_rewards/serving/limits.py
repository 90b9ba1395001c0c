"""The limits of a gateway, as its config states them."""

from __future__ import annotations

from pydantic import Field, model_validator

from drpo_rewards.api.images import ImageLimits
from drpo_rewards.settings.section import Section


class LimitsConfig(Section):
    """Limits on one request, and on all requests that a gateway holds at the same time. MB are 10^6 bytes.

    Example:
        limits: {max_body_mb: 64, max_ongoing: 32, retry_after_s: 2}
    """

    max_body_mb: float = Field(default=256.0, gt=0)
    max_body_mb_in_flight: float = Field(
        default=2048.0, gt=0, description="For all requests that one gateway works on or that wait for it."
    )
    body_idle_s: float = Field(
        default=30.0, gt=0, description="Seconds without data after which the gateway refuses the request."
    )
    max_pixels: int = Field(default=ImageLimits.max_pixels, ge=1, description="For one image.")
    max_group_pixels: int = Field(default=ImageLimits.max_group_pixels, ge=1, description="For a whole request.")
    min_side: int = Field(default=ImageLimits.min_side, ge=1)
    max_scans: int = Field(
        default=ImageLimits.max_scans, ge=1, description="Scans of one JPEG file; encoders make 1 to about 20."
    )
    max_webp_pixels: int = Field(
        default=ImageLimits.max_webp_pixels, ge=1, description="For one WebP file; decoding it makes others wait."
    )
    max_decode_s: float = Field(
        default=4.0,
        gt=0,
        description="Seconds of a processor for decoding a request's images, as estimated; twice that if measured.",
    )
    max_pixels_in_flight: int = Field(
        default=4 * ImageLimits.max_group_pixels,
        ge=1,
        description="Decoded pixels of all requests that one gateway works on.",
    )
    max_ongoing: int = Field(
        default=64, ge=1, le=1_000_000, description="Requests that one gateway works on at the same time."
    )
    max_queued: int = Field(
        default=256, ge=1, le=1_000_000, description="Requests that may wait for a gateway; others are answered 429."
    )
    retry_after_s: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _one_request_fits(self) -> LimitsConfig:
        if self.max_pixels_in_flight < self.max_group_pixels:
            raise ValueError("max_pixels_in_flight must hold at least one request of max_group_pixels")
        if self.max_body_mb_in_flight < self.max_body_mb:
            raise ValueError("max_body_mb_in_flight must hold at least one body of max_body_mb")
        return self

    def for_images(self) -> ImageLimits:
        """Return the limits on images."""
        return ImageLimits(self.min_side, self.max_pixels, self.max_group_pixels, self.max_scans, self.max_webp_pixels)
