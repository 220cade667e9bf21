"""Commands of ``attfc-train``, a file each."""
