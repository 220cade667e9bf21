"""Clusters a stream of face embeddings into identities (OGMC, arXiv 2103.17272), and scores clusterings."""
