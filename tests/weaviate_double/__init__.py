"""A stand-in for Weaviate that speaks its protocol on the wire: REST, and the gRPC service of its own client.

It really stores and searches, in memory, by our own reading of the vendor's documentation and source: it refuses what
Weaviate refuses (unknown collections, tenants, properties; filters on what has no index), sorts texts without regard to
case as Weaviate does, ranks by cosine and BM25, and fuses relative scores. It is our model of Weaviate, not Weaviate.
"""
