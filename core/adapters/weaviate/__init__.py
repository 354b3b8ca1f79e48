"""Similarity in Weaviate."""
