"""One tiny sample of each model type, for what runs over all of them."""

from tests import decoder_families, families, recurrent_families
from tests.families import Fields


def samples() -> dict[str, Fields]:
    """The first sample of each model type."""
    found: dict[str, Fields] = {}
    tables = (
        decoder_families.DECODERS,
        families.ENCODERS,
        families.ENCODER_DECODERS,
        recurrent_families.PUBLISHED,
        recurrent_families.OURS,
    )
    for table in tables:
        for fields in table.values():
            found.setdefault(fields["model_type"], fields)
    return found
