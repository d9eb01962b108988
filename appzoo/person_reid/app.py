"""Re-identification of persons: the same person in the images of other cameras, and in other clothes.

The baseline is that of Luo et al., CVPRW 2019, arXiv 1903.07071. AS-GAN and AIFL are Yu et al., "Apparel-invariant
Feature Learning for (Apparel-changed) Person Re-identification", arXiv 2008.06181.
"""

from __future__ import annotations

from appzoo.person_reid.aifl.app import Aifl
from appzoo.person_reid.baseline import PersonReid
from appzoo.person_reid.gan.app import AsGan

VARIANTS = {"baseline": PersonReid, "as_gan": AsGan, "aifl": Aifl}
