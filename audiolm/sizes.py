"""Limits for the sizes in a config: what is read from a file must not decide how much memory is taken."""

from audiolm.errors import ConfigError


def check_sizes(what: str, config: object, **limits: tuple[int, int]) -> None:
    """Refuse fields of ``config`` that are not whole numbers within their limits (both included).

    Raises:
        ConfigError: names the field, its value and its limits.
    """
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(
                f"{what}: {name} is {value!r}; expected a whole number from {low} to {high}", field=name, value=value
            )


def check_heads(what: str, width: int, heads: int, multiple: int = 1) -> None:
    """Refuse a width that does not split into heads whose width is a multiple of ``multiple``.

    Raises:
        ConfigError: it does not.
    """
    if width % (heads * multiple):
        raise ConfigError(
            f"{what}: width {width} does not split into {heads} heads of a multiple of {multiple}; "
            f"try {max(1, round(width / (heads * multiple))) * heads * multiple}",
            width=width,
            heads=heads,
        )
