"""Which applications and toys are trained at every commit; the others are with `sh scripts/test.sh --all`."""

from appzoo import discovery

# In place of the first variant, where that has the network of another application: text_classify has it on one text.
VARIANTS = {"text_match": "dam"}
# A result file of its own, two optimizers, two stages, and a text that is decoded.
TOYS = {"maps", "gan", "two_stages", "writing"}


def variant_of(application: str) -> str:
    """Returns the variant of an application whose smoke configuration is run at every commit."""
    return VARIANTS.get(application, next(iter(discovery.applications()[application].variants)))
