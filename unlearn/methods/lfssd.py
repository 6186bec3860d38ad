"""Loss-free selective synaptic dampening, LFSSD (Foster et al., arXiv 2402.19308). Re-implemented."""

from typing import ClassVar

from unlearn.methods.components.importance import Measure, squared_logit_norm
from unlearn.methods.ssd import SSD


class LFSSD(SSD):
    """SSD with the gradient of the logits' squared norm; labels are not used."""

    measure: ClassVar[Measure] = staticmethod(squared_logit_norm)
    power: ClassVar[int] = 1
