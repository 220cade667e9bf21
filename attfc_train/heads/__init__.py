"""Classification heads behind one `Head` protocol: the AttFC container, the full FC layer and Partial FC."""

from attfc_train.heads.attfc import AttFCHead
from attfc_train.heads.full_fc import FullFCHead
from attfc_train.heads.head import Enqueue, Head, HeadOutput
from attfc_train.heads.partial_fc import PartialFCHead

__all__ = ["AttFCHead", "Enqueue", "FullFCHead", "Head", "HeadOutput", "PartialFCHead"]
