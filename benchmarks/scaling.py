"""What an index of a large corpus takes: time, storage and machines, from rates that are given.

    python -m benchmarks.scaling --passages 1e8 --tokens 512 --tokens-per-second 3430 --price 2

Nothing is measured here: every figure is arithmetic on the arguments, by the formulae of
docs/scaling.md.
"""

import argparse
from dataclasses import dataclass

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Plan:
    """See docs/scaling.md; a rate is that of one device or one disk."""

    passages: float
    tokens: float  # of a passage
    dims: int
    tokens_per_second: float
    price: float  # of a device, an hour
    fit_tokens: float  # through the model before logging, in both passes
    hash_bytes_per_second: float

    @property
    def device_hours(self) -> float:
        return self.passages * self.tokens / self.tokens_per_second / SECONDS_PER_HOUR

    @property
    def fit_hours(self) -> float:
        return self.fit_tokens / self.tokens_per_second / SECONDS_PER_HOUR

    @property
    def vector_bytes(self) -> float:
        return self.passages * (2 * self.dims + 4)  # fp16, and the norm

    @property
    def publish_hours(self) -> float:
        return self.vector_bytes / self.hash_bytes_per_second / SECONDS_PER_HOUR

    def wall_hours(self, devices: int) -> float:
        """Logging is shared; the fit and publishing are done by one process."""
        return self.device_hours / devices + self.fit_hours + self.publish_hours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passages", type=float, default=1e8)
    parser.add_argument("--tokens", type=float, default=512)
    parser.add_argument("--dims", type=int, default=4096)
    parser.add_argument("--tokens-per-second", type=float, default=3430)
    parser.add_argument("--price", type=float, default=2.0, help="of a device, an hour")
    parser.add_argument("--fit-tokens", type=float, default=16_384 + 320 * 512)
    parser.add_argument("--hash-bytes-per-second", type=float, default=5e8)
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64, 256])
    given = vars(parser.parse_args())
    devices = given.pop("devices")
    plan = Plan(**given)
    per_million = plan.device_hours / plan.passages * 1e6
    print(f"device-hours            {plan.device_hours:,.0f}")
    print(f"  per million passages  {per_million:,.1f}, or {per_million * plan.price:,.2f}")
    print(f"vectors                 {plan.vector_bytes / 1e12:,.2f} TB")
    print(f"  1-bit codes           {plan.passages * plan.dims / 8 / 1e9:,.1f} GB")
    print(f"fit, by one process     {plan.fit_hours * 60:,.1f} min")
    print(f"publish, by one process {plan.publish_hours:,.1f} h")
    for count in devices:
        print(f"wall, {count:>4} devices       {plan.wall_hours(count):,.1f} h")


if __name__ == "__main__":
    main()
