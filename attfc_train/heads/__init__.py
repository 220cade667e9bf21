"""Classification heads behind one `Head` protocol: the AttFC container and the full FC layer."""

from attfc_train.heads.attfc import AttFCHead
from attfc_train.heads.full_fc import FullFCHead
from attfc_train.heads.head import Head, HeadOutput

__all__ = ["AttFCHead", "FullFCHead", "Head", "HeadOutput"]
